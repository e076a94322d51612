"""Embeddings begin: texts as a job."""

from collections.abc import Sequence

from models.access.rate_limits import token_draw_arguments
from models.accounts.accounts import Caller
from models.accounts.plans import UNLIMITED, Allowance
from models.jobs.jobs import NewJob, enqueue, ignore_duplicate_id
from models.jobs.quota import check_quota, check_unfinished_jobs
from models.platform.database import Database
from models.turns.embeddings import KIND

#: The most tokens of a text, and those that a tokenizer adds to one.
LONGEST, ADDED = 512, 2


def enqueue_embedding(
    database: Database,
    caller: Caller,
    texts: Sequence[str],
    dimensions: int | None,
    job_id: str,
    allowance: Allowance = UNLIMITED,
) -> None:
    """Accept texts to embed. Tell the queue afterwards. A job that stands already is this one, asked for again.

    `dimensions` is what the vectors should have; None: what they have. Raises TooMany and InsufficientQuota.
    """
    drawn = token_draw_arguments(caller.key_id, allowance.limits.tokens_per_minute, allowance.charged)
    job = NewJob(
        KIND,
        caller.account_id,
        {"texts": list(texts), "dimensions": dimensions, **drawn},
        id=job_id,
        reserved_tokens=max_tokens(texts) if allowance.limits.tokens_per_month is not None else 0,
    )
    with ignore_duplicate_id(), database.transaction() as connection:
        check_unfinished_jobs(connection, caller.account_id, allowance.limits)
        check_quota(connection, caller.account_id, allowance.limits, job.reserved_tokens)
        enqueue(connection, job)


def max_tokens(texts: Sequence[str]) -> int:
    """The most tokens that these texts can have: a token has at least one byte."""
    return sum(min(len(text.encode()) + ADDED, LONGEST) for text in texts)
