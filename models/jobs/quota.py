"""Check an account's quota and its number of unfinished jobs in the transaction that inserts a job.

An unfinished job reserves the most tokens that it can use in its own row (`jobs.reserved_tokens`). The reservation ends
with the job in every case, so it cannot leak. `quota_usage` has the tokens billed.

The root of a tree with a budget reserves for the whole tree. What its jobs draw from the budget is deducted from the
root's reservation: a child reserves what it has drawn itself, and what it has used is billed.

Lock order: the account, then threads and jobs. A transaction that locks jobs before the check locks the account first.
"""

from dataclasses import dataclass
from datetime import date

from models.accounts import admin
from models.accounts.plans import Limits
from models.jobs.recent_counts import RecentCounts, UnfinishedCount
from models.platform.database import Connection, fetch_one
from models.platform.errors import InsufficientQuota, LimitExceeded, TooLarge

#: Most unfinished turns of one conversation. They run one by one, so the last of them waits for hours.
MAX_THREAD_TURNS = 1000

#: Seconds after which to retry: a job may have ended by then.
RETRY_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class MonthlyUsage:
    """Tokens of a calendar month (UTC): billed, and reserved by unfinished jobs."""

    month: date
    used: int
    reserved: int


# Serialise concurrent checks, so that two requests cannot reserve the same tokens.
LOCK = "SELECT FROM accounts WHERE id = %(account_id)s FOR NO KEY UPDATE"

USAGE = """
SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS month,
       coalesce((SELECT sum(tokens) FROM quota_usage
                 WHERE account_id = %(account_id)s AND month = date_trunc('month', now() AT TIME ZONE 'UTC')::date
                ), 0)::bigint AS used,
       coalesce((SELECT sum(greatest(jobs.reserved_tokens - coalesce(budgets.tokens, 0), 0))
                 FROM jobs LEFT JOIN budgets ON budgets.root_id = jobs.id
                 WHERE jobs.account_id = %(account_id)s AND jobs.reserved_tokens > 0
                   AND jobs.state IN ('scheduled', 'queued', 'running', 'waiting')
                ), 0)::bigint AS reserved
"""


def monthly_usage(connection: Connection, account_id: str) -> MonthlyUsage:
    """Return the tokens that the account has used and reserved this month."""
    row = fetch_one(connection, USAGE, {"account_id": account_id})
    assert row is not None
    return MonthlyUsage(**row)


def lock_account(connection: Connection, account_id: str, limits: Limits) -> None:
    """Lock the account, if `check_quota` will do so, before the caller's transaction locks any of its jobs."""
    if limits.tokens_per_month is not None:
        connection.execute(LOCK, {"account_id": account_id})


def lock_month(connection: Connection, account_id: str) -> Limits:
    """Return the limits of an account, which is locked if its month has one, for `check_quota` in this transaction."""
    account = admin.read_account(connection, account_id)
    limits = account.limits if account else Limits()
    lock_account(connection, account_id, limits)
    return limits


def check_quota(connection: Connection, account_id: str, limits: Limits, tokens: int) -> None:
    """Raise InsufficientQuota if `tokens` more exceed the account's monthly limit. The caller's transaction reserves
    them.

    An account without a monthly limit is not locked.
    """
    limit = limits.tokens_per_month
    if limit is None:
        return
    lock_account(connection, account_id, limits)
    now = monthly_usage(connection, account_id)
    if now.used + now.reserved + tokens > limit:
        raise InsufficientQuota(
            f"The request needs up to {tokens} tokens. Of the account's {limit} tokens per month {now.used} are used "
            f"and {now.reserved} are reserved by unfinished jobs."
        )


# Counts at most as many rows as the limits. Jobs that follow turns by themselves do not count, and of a batch only its
# own job: it bounds those of its lines.
UNFINISHED = """
SELECT account.jobs, account.bytes, thread.turns
FROM (SELECT count(*) AS jobs, coalesce(sum(job_bytes), 0)::bigint AS bytes FROM (
          SELECT job_bytes FROM jobs
          WHERE account_id = %(account_id)s AND state IN ('scheduled', 'queued', 'running', 'waiting')
            AND kind NOT IN ('memory.remember', 'memory.extract', 'memory.fact', 'memory.reindex')
            AND arguments -> 'of_batch' IS NULL
          LIMIT %(max_jobs)s::bigint) AS unfinished) AS account,
     (SELECT count(*) AS turns FROM (
          SELECT FROM jobs
          WHERE serial_key = %(thread)s AND state IN ('scheduled', 'queued', 'running', 'waiting')
          LIMIT %(max_turns)s::bigint) AS queued) AS thread
"""

_recent_counts = RecentCounts()


def check_unfinished_jobs(
    connection: Connection, account_id: str, limits: Limits, thread: str | None = None, *, size: int = 0
) -> None:
    """Check that the account and the thread may have one more unfinished job, of `size` bytes.

    The limits bound a queue and bill nothing, so they are not exact: concurrent requests may exceed them together, by
    the body of each, and a process uses a large count again for at most a second. Otherwise each request would read up
    to 20,000 rows. Raises TooLarge if the job alone exceeds the limit of bytes, and LimitExceeded.
    """
    max_bytes = limits.unfinished_bytes
    if max_bytes is not None and size > max_bytes:
        message = f"The request has {size} bytes. Unfinished jobs may have {max_bytes} bytes (unfinished_bytes)."
        raise TooLarge(message, code="job_too_large")
    account, turns = _count_unfinished(connection, account_id, limits, thread, size)
    _check_account(account, limits, size)
    if turns >= MAX_THREAD_TURNS:
        message = f"The conversation has reached its limit of {MAX_THREAD_TURNS} unfinished turns. Retry when some end."
        raise LimitExceeded(message, param="conversation", code="conversation_full", retry_after=RETRY_AFTER)


def _check_account(unfinished: UnfinishedCount, limits: Limits, size: int) -> None:
    max_jobs, max_bytes = limits.unfinished_jobs, limits.unfinished_bytes
    if max_jobs is not None and unfinished.jobs >= max_jobs:
        message = f"The account has reached its limit of {max_jobs} unfinished jobs. Retry when some end."
        raise LimitExceeded(message, code="too_many_jobs", retry_after=RETRY_AFTER)
    if max_bytes is not None and unfinished.size + size > max_bytes:
        message = (
            f"The request has {size} bytes. Unfinished jobs have {unfinished.size} of at most {max_bytes} bytes "
            f"(unfinished_bytes). Retry when some end."
        )
        raise LimitExceeded(message, code="too_many_job_bytes", retry_after=RETRY_AFTER)


def _count_unfinished(
    connection: Connection, account_id: str, limits: Limits, thread: str | None, size: int
) -> tuple[UnfinishedCount, int]:
    """Return the unfinished jobs of the account and the unfinished turns of the thread; 0 for what has no limit."""
    unlimited = limits.unfinished_jobs is None and limits.unfinished_bytes is None
    account = UnfinishedCount() if unlimited else _recent_counts.take(account_id, size)
    turns = UnfinishedCount() if thread is None else _recent_counts.take(thread)
    if account is not None and turns is not None:
        return account, turns.jobs
    parameters = {"account_id": account_id, "max_jobs": limits.unfinished_jobs if account is None else 0,
                  "thread": thread, "max_turns": MAX_THREAD_TURNS if turns is None else 0}  # fmt: skip
    row = fetch_one(connection, UNFINISHED, parameters)
    assert row is not None
    if account is None:
        account = _recent_counts.put(account_id, UnfinishedCount(row["jobs"], row["bytes"]), size)
    if turns is None:
        turns = _recent_counts.put(str(thread), UnfinishedCount(row["turns"]))
    return account, turns.jobs


UNFINISHED_OF_KIND = """
SELECT true FROM jobs
WHERE account_id = %(account_id)s AND kind = %(kind)s AND state IN ('scheduled', 'queued', 'running', 'waiting')
LIMIT 1
"""


def check_no_unfinished(connection: Connection, account_id: str, kind: str) -> None:
    """Raise LimitExceeded if the account has an unfinished job of this kind. Locks the account until the commit."""
    connection.execute(LOCK, {"account_id": account_id})
    if fetch_one(connection, UNFINISHED_OF_KIND, {"account_id": account_id, "kind": kind}) is not None:
        message = f"The account has an unfinished job {kind}. Retry when it has ended, or cancel it."
        raise LimitExceeded(message, code="already_running", retry_after=RETRY_AFTER)


#: Tokens that the chat template and special tokens add per item.
ITEM_TOKENS = 16


def max_prompt_tokens(size: int, items: int, context: int) -> int:
    """Return the most tokens that a prompt of `items` with so many bytes can have: a token has at least one byte."""
    return min(context, size + items * ITEM_TOKENS)
