"""Embeddings: texts go in as a job's arguments, vectors come out as its result, and are taken by whoever waits.

Nothing of them is kept: a result is read once, and one that nobody reads goes by `models.jobs.unclaimed_results`. The bill stays.
"""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.platform.database import Connection, fetch_one

#: The kind of work.
KIND = "embedding.create"

#: Bytes of a number: little-endian float32, as OpenAI's `base64` has them.
NUMBER = 4


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """The vectors of a job's texts, in order, each as little-endian float32."""

    model: str
    vectors: Sequence[bytes]
    prompt_tokens: int


# An ended job goes as it is read, with its journal.
TAKE = """
DELETE FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s AND kind = 'embedding.create'
    AND state = 'completed'
RETURNING result
"""


def take_result(connection: Connection, job_id: str, account_id: str) -> EmbeddingResult | None:
    """The result of a completed job of the account, which is gone from here on; None where there is none."""
    row = fetch_one(connection, TAKE, {"id": job_id, "account_id": account_id})
    return parse_result(row["result"]) if row else None


def parse_result(result: dict[str, Any]) -> EmbeddingResult:
    """What stands in the job's row."""
    size, every = result["dimensions"] * NUMBER, b64decode(result["vectors"])
    vectors = [every[place : place + size] for place in range(0, len(every), size)]
    return EmbeddingResult(result["model"], vectors, result["prompt_tokens"])
