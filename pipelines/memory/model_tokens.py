"""Tokens of the language model's calls about memories: what a call needs, and what the account's month has left."""

from collections.abc import Iterable, Sequence

from models.accounts import admin
from models.billing import spending
from models.billing.spending import MostTokens
from models.jobs.jobs import NewJob
from models.jobs.quota import monthly_usage
from models.platform.database import Connection

#: Tokens of a prompt's instructions, tokens of the frame of each memory in it, and bytes per token.
INSTRUCTION_TOKENS, FRAME_TOKENS, BYTES_PER_TOKEN = 200, 16, 3


def estimate_tokens(texts: Iterable[str], *, max_length: int, answer_tokens: int) -> int:
    """Estimate the tokens of a call, rounded up so that the reservation covers it.

    max_length     characters of each text that the prompt shows
    answer_tokens  the most tokens of the answer
    """
    sizes = (len(text[:max_length].encode()) for text in texts)
    return INSTRUCTION_TOKENS + sum(size // BYTES_PER_TOKEN + FRAME_TOKENS for size in sizes) + answer_tokens


def tokens_left(connection: Connection, account_id: str, model: str) -> int | None:
    """Return the tokens that the account may still use this month; None if nothing limits them.

    By the tokens of its plan, and by the tokens of `model` that its spending limits pay for.
    """
    left = [_left_of_month(connection, account_id), spending.tokens_left(connection, account_id, model)]
    return min((tokens for tokens in left if tokens is not None), default=None)


def _left_of_month(connection: Connection, account_id: str) -> int | None:
    account = admin.read_account(connection, account_id)
    if account is None or (limit := account.limits.tokens_per_month) is None:
        return None
    month = monthly_usage(connection, account_id)
    return max(0, limit - month.used - month.reserved)


def reserve_money(connection: Connection, jobs: Sequence[NewJob], model: str) -> None:
    """Reserve the most that calls of the model can cost, before their jobs are inserted. Raises SpendingLimitReached.

    Any of a call's tokens may be of its answer.
    """
    for account_id in {job.account_id for job in jobs}:
        most = {job.id: MostTokens(model, job.reserved_tokens, job.reserved_tokens, job.reserved_tokens)
                for job in jobs if job.account_id == account_id}  # fmt: skip
        spending.reserve(connection, account_id, most)
