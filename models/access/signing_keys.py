"""The generations of the key that signs access tokens. Keys are derived from the secret; here stand only numbers."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from models.platform.database import Connection, fetch_all, fetch_one

#: For how long a generation holds after the next one came: as long as a token, and until the last process has heard.
HOLD = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeyGeneration:
    """A generation. `until` is when it ceases to hold, None for the one that signs."""

    generation: int
    created_at: datetime
    until: datetime | None


LIST = """
SELECT generation, created_at, lead(created_at) OVER (ORDER BY generation) + %(hold)s AS until
FROM signing_keys ORDER BY generation
"""


def list_generations(connection: Connection) -> list[KeyGeneration]:
    """All generations, the one that signs last."""
    return [KeyGeneration(**row) for row in fetch_all(connection, LIST, {"hold": HOLD})]


HOLDING = """
SELECT generation FROM signing_keys AS key
WHERE NOT EXISTS (
    SELECT 1 FROM signing_keys AS later
    WHERE later.generation > key.generation AND later.created_at < now() - %(hold)s)
ORDER BY generation
"""


def valid_generations(connection: Connection) -> list[int]:
    """The generations whose tokens are taken, the one that signs last."""
    return [row["generation"] for row in fetch_all(connection, HOLDING, {"hold": HOLD})]


ROTATE = """
INSERT INTO signing_keys (generation) SELECT coalesce(max(generation), 0) + 1 FROM signing_keys
ON CONFLICT DO NOTHING RETURNING generation
"""


def rotate(connection: Connection) -> int | None:
    """Begin a new generation and return its number; None when somebody else did so at this moment."""
    row = fetch_one(connection, ROTATE)
    return row["generation"] if row else None
