"""Embeddings: texts go in as a job's arguments, vectors come out as its result, and are taken by whoever waits.

Nothing of them is kept: a result is read once, and one that nobody has read goes after a while. What was billed stays.
"""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.database import Connection, one

#: The kind of work.
KIND = "embedding.create"

#: Seconds that a result waits for its reader.
KEPT = 600

#: Bytes of a number: little-endian float32, as OpenAI's `base64` has them.
NUMBER = 4


@dataclass(frozen=True, slots=True)
class Embeddings:
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


def take(connection: Connection, job_id: str, account_id: str) -> Embeddings | None:
    """The result of a completed job of the account, which is gone from here on; None where there is none."""
    row = one(connection, TAKE, {"id": job_id, "account_id": account_id})
    return from_result(row["result"]) if row else None


def from_result(result: dict[str, Any]) -> Embeddings:
    """What stands in the job's row."""
    size, every = result["dimensions"] * NUMBER, b64decode(result["vectors"])
    vectors = [every[place : place + size] for place in range(0, len(every), size)]
    return Embeddings(result["model"], vectors, result["prompt_tokens"])


# What nobody has read in time; the dead stay until an operator has dealt with them.
EXPIRE = """
WITH unread AS (
    SELECT id FROM jobs
    WHERE kind = 'embedding.create' AND state IN ('completed', 'failed', 'cancelled')
      AND finished_at < now() - make_interval(secs => %(kept)s)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), gone AS (DELETE FROM jobs USING unread WHERE jobs.id = unread.id RETURNING jobs.id)
SELECT count(*) AS gone FROM gone
"""


def expire(connection: Connection, limit: int, *, kept: float = KEPT) -> int:
    """Delete at most `limit` results that nobody has read; returns how many there were."""
    row = one(connection, EXPIRE, {"kept": kept, "limit": limit})
    return int(row["gone"]) if row else 0
