"""The generations of the key that signs access tokens, which is derived from the secret key and not stored."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from models.platform.database import Connection, fetch_all, fetch_one

#: How long a generation is accepted after the next one was added: the lifetime of a token, and the time until every
#: process knows the new one.
ACCEPTANCE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeyGeneration:
    """A generation of the key. `until` is when it stops being accepted; None for the one that signs."""

    generation: int
    created_at: datetime
    until: datetime | None


LIST = """
SELECT generation, created_at, lead(created_at) OVER (ORDER BY generation) + %(acceptance)s AS until
FROM signing_keys ORDER BY generation
"""


def list_generations(connection: Connection) -> list[KeyGeneration]:
    """Return all generations; the last one signs."""
    return [KeyGeneration(**row) for row in fetch_all(connection, LIST, {"acceptance": ACCEPTANCE})]


VALID = """
SELECT generation FROM signing_keys AS key
WHERE NOT EXISTS (
    SELECT 1 FROM signing_keys AS later
    WHERE later.generation > key.generation AND later.created_at < now() - %(acceptance)s)
ORDER BY generation
"""


def valid_generations(connection: Connection) -> list[int]:
    """Return the generations whose tokens are accepted; the last one signs."""
    return [row["generation"] for row in fetch_all(connection, VALID, {"acceptance": ACCEPTANCE})]


ROTATE = """
INSERT INTO signing_keys (generation) SELECT coalesce(max(generation), 0) + 1 FROM signing_keys
ON CONFLICT DO NOTHING RETURNING generation
"""


def rotate(connection: Connection) -> int | None:
    """Add a generation and return its number; None if another process did so at the same moment."""
    row = fetch_one(connection, ROTATE)
    return row["generation"] if row else None
