"""Check an account's quota and its number of unfinished jobs in the transaction that inserts a job.

An unfinished job reserves the most tokens that it can use in its own row (`jobs.reserved_tokens`). The reservation ends
with the job in every case, so it cannot leak. `quota_usage` has the tokens billed.
"""

from dataclasses import dataclass
from datetime import date

from models.accounts.plans import Limits
from models.platform.database import Connection, fetch_one
from models.platform.errors import InsufficientQuota, LimitExceeded

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
       coalesce((SELECT sum(reserved_tokens) FROM jobs
                 WHERE account_id = %(account_id)s AND reserved_tokens > 0 AND state IN ('queued', 'running', 'waiting')
                ), 0)::bigint AS reserved
"""


def monthly_usage(connection: Connection, account_id: str) -> MonthlyUsage:
    """Return the tokens that the account has used and reserved this month."""
    row = fetch_one(connection, USAGE, {"account_id": account_id})
    assert row is not None
    return MonthlyUsage(**row)


def check_quota(connection: Connection, account_id: str, limits: Limits, tokens: int) -> None:
    """Raise InsufficientQuota if `tokens` more exceed the account's monthly limit. The caller's transaction reserves
    them.

    An account without a monthly limit is not locked.
    """
    limit = limits.tokens_per_month
    if limit is None:
        return
    connection.execute(LOCK, {"account_id": account_id})
    now = monthly_usage(connection, account_id)
    if now.used + now.reserved + tokens > limit:
        raise InsufficientQuota(
            f"The request needs up to {tokens} tokens. Of the account's {limit} tokens per month {now.used} are used "
            f"and {now.reserved} are reserved by unfinished jobs."
        )


# Counts at most as many rows as the limit. Jobs that follow turns by themselves do not count.
UNFINISHED = """
SELECT (SELECT count(*) FROM (
            SELECT FROM jobs WHERE account_id = %(account_id)s AND state IN ('queued', 'running', 'waiting')
              AND kind NOT IN ('memory.remember', 'memory.extract', 'memory.fact')
            LIMIT coalesce(%(jobs)s::bigint, 0)) AS unfinished) AS jobs,
       (SELECT count(*) FROM (
            SELECT FROM jobs WHERE serial_key = %(thread)s AND state IN ('queued', 'running', 'waiting')
            LIMIT %(turns)s) AS queued) AS turns
"""


def check_unfinished_jobs(connection: Connection, account_id: str, limits: Limits, thread: str | None = None) -> None:
    """Raise LimitExceeded if the account or the thread has as many unfinished jobs as allowed.

    Concurrent requests may exceed the limit together: it bounds a queue and bills nothing.
    """
    if limits.unfinished_jobs is None and thread is None:
        return
    row = fetch_one(connection, UNFINISHED, {"account_id": account_id, "jobs": limits.unfinished_jobs, "thread": thread,
                                 "turns": MAX_THREAD_TURNS})  # fmt: skip
    assert row is not None
    if limits.unfinished_jobs is not None and row["jobs"] >= limits.unfinished_jobs:
        message = f"The account has {row['jobs']} unfinished jobs; its limit is {limits.unfinished_jobs}."
        raise LimitExceeded(message, code="too_many_jobs", retry_after=RETRY_AFTER)
    if row["turns"] >= MAX_THREAD_TURNS:
        message = f"The conversation has {row['turns']} unfinished turns, the most allowed. Retry when some have ended."
        raise LimitExceeded(message, param="conversation", code="conversation_full", retry_after=RETRY_AFTER)


#: Tokens that the chat template and special tokens add per item.
ITEM_TOKENS = 16


def max_billable_tokens(size: int, items: int, *, output: int | None, context: int, history: bool) -> int:
    """Return the most tokens that a turn can be billed for.

    size     bytes of all `items` of its input: a token has at least one byte
    output   limit of generated tokens; None: as many as fit
    context  tokens that prompt and answer have in the engine together
    history  whether earlier turns are added: then the prompt may fill the context
    """
    if history or output is None:
        return context
    return min(context, size + items * ITEM_TOKENS + output)
