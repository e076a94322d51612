"""Tokens of the language model's calls about memories: what a call needs, and what the account's month has left."""

from collections.abc import Iterable, Sequence

from models.accounts import admin
from models.billing import spending
from models.billing.prepaid import METHOD_GATEWAYS
from models.billing.spending import MostTokens
from models.jobs.jobs import NewJob
from models.jobs.quota import monthly_usage
from models.jobs.usage import BACKGROUND
from models.platform.database import Connection
from models.platform.settings import Settings
from pipelines.inference.registry import default_model

#: Tokens of a prompt's instructions, and of the frame of each memory in it.
INSTRUCTION_TOKENS, FRAME_TOKENS = 200, 16

#: Bytes per token of ASCII text, and of other text: vocabularies have fewer tokens for most scripts.
ASCII_BYTES, OTHER_BYTES = 3, 2


def estimate_tokens(texts: Iterable[str], *, max_length: int, answer_tokens: int) -> int:
    """Estimate the tokens of a call, rounded up so that the reservation covers it.

    max_length     characters of each text that the prompt shows
    answer_tokens  the most tokens of the answer
    """
    return INSTRUCTION_TOKENS + sum(_tokens(text[:max_length]) + FRAME_TOKENS for text in texts) + answer_tokens


def _tokens(text: str) -> int:
    ascii_bytes = len(text.encode("ascii", "ignore"))
    return ascii_bytes // ASCII_BYTES + (len(text.encode()) - ascii_bytes) // OTHER_BYTES


def tokens_left(connection: Connection, account_id: str, settings: Settings) -> int | None:
    """Return the tokens that the account may still use this month; None if nothing limits them.

    By the models and tokens of its plan, and by the tokens of the served model that its money pays for.
    """
    model, required = default_model(settings), settings.gateway in METHOD_GATEWAYS
    left = [
        _left_of_month(connection, account_id, model),
        spending.tokens_left(connection, account_id, model, method_required=required),
    ]
    return min((tokens for tokens in left if tokens is not None), default=None)


def _left_of_month(connection: Connection, account_id: str, model: str) -> int | None:
    account = admin.read_account(connection, account_id)
    if account is None:
        return None
    if not account.limits.allow(model):
        return 0
    if (limit := account.limits.tokens_per_month) is None:
        return None
    month = monthly_usage(connection, account_id)
    return max(0, limit - month.used - month.reserved)


def reserve_money(connection: Connection, jobs: Sequence[NewJob], settings: Settings) -> None:
    """Reserve the most that calls of the model can cost, before their jobs are inserted. Raises SpendingLimitReached.

    Any of a call's tokens may be of its answer.
    """
    model, required = default_model(settings), settings.gateway in METHOD_GATEWAYS
    for account_id in {job.account_id for job in jobs}:
        most = {job.id: _most(model, job.reserved_tokens) for job in jobs if job.account_id == account_id}
        spending.reserve(connection, account_id, most, method_required=required)


def _most(model: str, tokens: int) -> MostTokens:
    return MostTokens(model, tokens, tokens, tokens, BACKGROUND)
