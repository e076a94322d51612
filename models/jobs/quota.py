"""What an account may have at a time and in a month: asked before a job is inserted, in the same transaction.

An unfinished job reserves its worst case in its own row (`jobs.reserved_tokens`), so that the reservation ends with the
job, however that ends: no counter can go wrong. What was billed stands in `quota_usage`.
"""

from dataclasses import dataclass
from datetime import date

from models.accounts.plans import Limits
from models.platform.database import Connection, fetch_one
from models.platform.errors import InsufficientQuota, LimitExceeded

#: Unfinished turns of one conversation: they run one by one, so the last of these waits for hours already.
MOST_IN_THREAD = 1000

#: Seconds after which a job may have ended and made room.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class MonthlyUsage:
    """Tokens of a calendar month (UTC): billed, and reserved by unfinished jobs."""

    month: date
    used: int
    reserved: int


# Two that ask at once must not both find the same room: one waits for the other's commit.
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
    """What the account has used this month, and what it may yet use by what it has begun."""
    row = fetch_one(connection, USAGE, {"account_id": account_id})
    assert row is not None
    return MonthlyUsage(**row)


def check_quota(connection: Connection, account_id: str, limits: Limits, tokens: int) -> None:
    """Raise InsufficientQuota unless so many tokens more fit into the month. For a transaction, which then reserves.

    An account without a monthly limit pays nothing for this.
    """
    limit = limits.tokens_per_month
    if limit is None:
        return
    connection.execute(LOCK, {"account_id": account_id})
    now = monthly_usage(connection, account_id)
    if now.used + now.reserved + tokens > limit:
        raise InsufficientQuota(
            f"This needs up to {tokens} tokens; of the {limit} tokens a month of this account, {now.used} are used "
            f"and {now.reserved} reserved by what is unfinished."
        )


# No more rows are counted than the limit has. What follows turns by itself is nobody's request.
ROOM = """
SELECT (SELECT count(*) FROM (
            SELECT FROM jobs WHERE account_id = %(account_id)s AND state IN ('queued', 'running', 'waiting')
              AND kind NOT IN ('memory.remember', 'memory.extract', 'memory.fact')
            LIMIT coalesce(%(jobs)s::bigint, 0)) AS unfinished) AS jobs,
       (SELECT count(*) FROM (
            SELECT FROM jobs WHERE serial_key = %(thread)s AND state IN ('queued', 'running', 'waiting')
            LIMIT %(turns)s) AS queued) AS turns
"""


def check_unfinished_jobs(connection: Connection, account_id: str, limits: Limits, thread: str | None = None) -> None:
    """Raise TooMany when the account, or the thread that turns are to join, has as many unfinished jobs as it may.

    Those who ask at the same time may pass together: this bounds a queue, and bills nobody.
    """
    if limits.unfinished_jobs is None and thread is None:
        return
    row = fetch_one(connection, ROOM, {"account_id": account_id, "jobs": limits.unfinished_jobs, "thread": thread,
                                 "turns": MOST_IN_THREAD})  # fmt: skip
    assert row is not None
    if limits.unfinished_jobs is not None and row["jobs"] >= limits.unfinished_jobs:
        message = f"This account has {row['jobs']} unfinished jobs; {limits.unfinished_jobs} are allowed."
        raise LimitExceeded(message, code="too_many_jobs", retry_after=PATIENCE)
    if row["turns"] >= MOST_IN_THREAD:
        message = f"{row['turns']} turns wait in this conversation; no more are taken before some have ended."
        raise LimitExceeded(message, param="conversation", code="conversation_full", retry_after=PATIENCE)


#: Tokens that a chat template and the engine's own words add to an item.
ITEM_TOKENS = 16


def max_billable_tokens(size: int, items: int, *, output: int | None, context: int, history: bool) -> int:
    """The most tokens that a turn can be billed for.

    size     bytes of all `items` that it brings: a token has at least one
    output   the most that it may answer; None: as much as fits
    context  the tokens that prompt and answer have in the engine together
    history  whether earlier turns come with it: then the prompt may fill the context
    """
    if history or output is None:
        return context
    return min(context, size + items * ITEM_TOKENS + output)
