"""Tokens of the language model's calls about memories: what a call needs, and what the account's month has left."""

from collections.abc import Iterable

from models.accounts import admin
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


def tokens_left(connection: Connection, account_id: str) -> int | None:
    """Return the tokens that the account may still use this month; None if its month has no limit."""
    account = admin.read_account(connection, account_id)
    if account is None or (limit := account.limits.tokens_per_month) is None:
        return None
    month = monthly_usage(connection, account_id)
    return max(0, limit - month.used - month.reserved)
