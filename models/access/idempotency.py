"""Idempotency keys: a creating request that comes twice under one key makes one thing and gets one answer.

A request claims its key before it does anything, and the claim is committed with a seed from which the ids of all that
it makes are derived. So whoever comes after a crash between making and answering makes the same thing, and finds it.

    claimed ──success──► answered, with what is to be said again
       │ └──refused────► gone: nothing was made
       └────error, crash─► open to the next one, who goes on with the same seed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_one
from models.platform.errors import UnprocessableRequest
from models.platform.ids import new_id

#: Seconds that a claim holds when its process dies.
LEASE = 30.0

#: Hours after which a key is forgotten.
KEPT_HOURS = 24

#: What a request knows of earlier ones with its key: none; one that may have made something; one that was answered.
PriorUse = Literal["first", "tried", "answered"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to make what a request asks for; `repeat` tells whether somebody has begun before."""

    account_id: str
    key: str
    seed: str
    locked_until: datetime
    repeat: PriorUse


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The answer that the first request got. `body` is sealed."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


# A key that is new, or whose request is known to be unfinished, or that may be shared.
CLAIM = """
INSERT INTO idempotency_keys AS held (account_id, key, fingerprint, seed, locked_until)
VALUES (%(account_id)s, %(key)s, %(fingerprint)s, %(seed)s, clock_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (account_id, key) DO UPDATE SET locked_until = excluded.locked_until
WHERE held.fingerprint = excluded.fingerprint AND held.body IS NULL
  AND (%(shared)s OR held.locked_until <= clock_timestamp())
RETURNING seed, locked_until, status
"""

READ = """
SELECT fingerprint, status, headers, body FROM idempotency_keys WHERE account_id = %(account_id)s AND key = %(key)s
"""


def reserve(
    connection: Connection, account_id: str, key: str, fingerprint: bytes, *, shared: bool = False
) -> Reservation | StoredResponse | None:
    """Claim a key, or get the answer that it had; None while another request holds it.

    `shared` claims are given to all who ask: for requests that find by themselves what an earlier one has made. Raises
    Mismatch when the key belongs to another request.
    """
    seed = new_id("seed")
    names = {"account_id": account_id, "key": key, "fingerprint": fingerprint, "seed": seed}
    row = fetch_one(connection, CLAIM, {**names, "lease": LEASE, "shared": shared})
    if row is not None:
        repeat: PriorUse = "answered" if row["status"] else "first" if row["seed"] == seed else "tried"
        return Reservation(account_id, key, row["seed"], row["locked_until"], repeat)
    found = fetch_one(connection, READ, names)
    if found is None:
        return None  # it was refused just now
    if found["fingerprint"] != fingerprint:
        raise UnprocessableRequest("This Idempotency-Key was used with another request.", param="Idempotency-Key",
                       code="idempotency_key_reused")  # fmt: skip
    if found["body"] is None:
        return None
    return StoredResponse(found["status"], [(name, value) for name, value in found["headers"]], found["body"])


# Whoever takes a claim over changes its time: what follows touches one's own only.
RENEW = """
UPDATE idempotency_keys SET locked_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE account_id = %(account_id)s AND key = %(key)s AND locked_until = %(locked_until)s AND status IS NULL
RETURNING locked_until
"""


def extend(connection: Connection, held: Reservation) -> Reservation | None:
    """Hold a claim longer; None when it is lost."""
    row = fetch_one(connection, RENEW, {**_names(held), "lease": LEASE})
    return Reservation(held.account_id, held.key, held.seed, row["locked_until"], held.repeat) if row else None


ANSWER = """
UPDATE idempotency_keys SET status = %(status)s, headers = %(headers)s, body = %(body)s
WHERE account_id = %(account_id)s AND key = %(key)s AND seed = %(seed)s AND status IS NULL
"""


def store_response(
    connection: Connection,
    held: Reservation,
    status: int,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> None:
    """Store the first answer; without a body only that there was one."""
    connection.execute(ANSWER, {**_names(held), "status": status, "headers": Jsonb(list(headers)), "body": body})


FORGET = """
DELETE FROM idempotency_keys
WHERE account_id = %(account_id)s AND key = %(key)s AND locked_until = %(locked_until)s AND status IS NULL
"""

OPEN = """
UPDATE idempotency_keys SET locked_until = clock_timestamp()
WHERE account_id = %(account_id)s AND key = %(key)s AND locked_until = %(locked_until)s AND status IS NULL
"""


def release(connection: Connection, held: Reservation, *, made_nothing: bool) -> None:
    """Give a claim back. It goes when surely nothing was made under it, now or before; else its seed is kept."""
    connection.execute(FORGET if made_nothing and held.repeat == "first" else OPEN, _names(held))


# A batch of keys that are too old.
PRUNE = """
DELETE FROM idempotency_keys WHERE (account_id, key) IN (
    SELECT account_id, key FROM idempotency_keys
    WHERE created_at < now() - make_interval(hours => %(hours)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Forget a batch of old keys; returns how many."""
    return connection.execute(PRUNE, {"hours": KEPT_HOURS, "batch": batch}).rowcount


def _names(held: Reservation) -> dict[str, object]:
    return {"account_id": held.account_id, "key": held.key, "seed": held.seed, "locked_until": held.locked_until}
