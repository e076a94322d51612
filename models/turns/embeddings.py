"""The results of embedding jobs: the texts are in the job's arguments, the vectors in its result.

A result is read once and then deleted with its job; one that is not read is deleted by `unclaimed_results`. The usage
record is kept.
"""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.platform.database import Connection, fetch_one

#: The kind of job.
KIND = "embedding.create"

#: Bytes per number: little-endian float32, as in OpenAI's `base64` format.
NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """The vectors of a job's texts, in order, each as little-endian float32."""

    model: str
    vectors: Sequence[bytes]
    prompt_tokens: int


# The job and its journal are deleted with the read.
TAKE = """
DELETE FROM jobs WHERE id = %(id)s AND account_id = %(account_id)s AND kind = 'embedding.create'
    AND state = 'completed'
RETURNING result
"""


def take_result(connection: Connection, job_id: str, account_id: str) -> EmbeddingResult | None:
    """Return the result of a completed job of the account and delete the job; None if there is none."""
    row = fetch_one(connection, TAKE, {"id": job_id, "account_id": account_id})
    return parse_result(row["result"]) if row else None


def parse_result(result: dict[str, Any]) -> EmbeddingResult:
    """Parse the result column of the job."""
    vector_size, packed = result["dimensions"] * NUMBER_BYTES, b64decode(result["vectors"])
    vectors = [packed[start : start + vector_size] for start in range(0, len(packed), vector_size)]
    return EmbeddingResult(result["model"], vectors, result["prompt_tokens"])
