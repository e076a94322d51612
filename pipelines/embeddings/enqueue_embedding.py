"""Enqueue texts to embed."""

from collections.abc import Sequence

from models.access.rate_limits import token_draw_arguments
from models.accounts.accounts import Caller
from models.accounts.plans import UNLIMITED, Allowance
from models.billing.spending import MostTokens, reserve
from models.jobs.jobs import NewJob, enqueue, ignore_duplicate_id
from models.jobs.quota import check_quota, check_unfinished_jobs
from models.jobs.usage import BACKGROUND, KEY_ARGUMENT
from models.platform.database import Database
from models.turns.embeddings import KIND

#: Tokens of a text at most, and the special tokens that a tokenizer adds.
MAX_TOKENS, SPECIAL_TOKENS = 512, 2


def enqueue_embedding(
    database: Database,
    caller: Caller,
    texts: Sequence[str],
    dimensions: int | None,
    job_id: str,
    allowance: Allowance = UNLIMITED,
    *,
    model: str = "",
    batch: bool = False,
) -> None:
    """Enqueue a job that embeds the texts. Announce it to the queue afterwards. Does nothing if the job id exists.

    `dimensions` is the requested number; None for the model's. `model` is the model whose price limits spending.
    `batch`: it is background work. Raises LimitExceeded, InsufficientQuota and SpendingLimitReached.
    """
    job = embedding_job(caller, texts, dimensions, job_id, allowance, batch=batch)
    with ignore_duplicate_id(), database.transaction() as connection:
        if allowance.billed:
            most = {job_id: most_embedding_tokens(texts, model, batch=batch)}
            required = allowance.method_required
            reserve(connection, caller.account_id, most, key_id=caller.key_id, method_required=required)
        check_unfinished_jobs(connection, caller.account_id, allowance.limits, size=job.total_bytes)
        check_quota(connection, caller.account_id, allowance.limits, job.reserved_tokens)
        enqueue(connection, job)


def embedding_job(
    caller: Caller,
    texts: Sequence[str],
    dimensions: int | None,
    job_id: str,
    allowance: Allowance,
    *,
    batch: bool = False,
) -> NewJob:
    """Return the job that embeds the texts; see `enqueue_embedding`."""
    draw_arguments = token_draw_arguments(caller.key_id, allowance.limits.tokens_per_minute, allowance.estimated_tokens)
    key_argument = {KEY_ARGUMENT: caller.key_id} if caller.key_id else {}
    return NewJob(
        KIND,
        caller.account_id,
        {"texts": list(texts), "dimensions": dimensions, **key_argument, **draw_arguments},
        id=job_id,
        owner_id=caller.user_id,
        reserved_tokens=max_tokens(texts) if allowance.limits.tokens_per_month is not None else 0,
        batch=batch,
    )


def most_embedding_tokens(texts: Sequence[str], model: str, *, batch: bool = False) -> MostTokens:
    """Return what a job that embeds the texts reserves money for."""
    return MostTokens(model, max_tokens(texts), 0, service_class=BACKGROUND if batch else "standard")


def max_tokens(texts: Sequence[str]) -> int:
    """Return the most tokens that the texts can have: a token has at least one byte."""
    return sum(min(len(text.encode()) + SPECIAL_TOKENS, MAX_TOKENS) for text in texts)
