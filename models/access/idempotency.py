"""Idempotency keys: a repeated creating request creates one object and gets the first response.

A request reserves its key before it does anything. The reservation is committed with a seed from which the ids of all
objects that it creates are derived. So a retry after a crash creates objects with the same ids, and finds those that
exist.

    reserved ──success───► answered: the response is stored
       │  └────rejected──► deleted: nothing was created
       └─error or crash──► open: the next request continues with the same seed
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_one
from models.platform.errors import UnprocessableRequest
from models.platform.ids import new_id

#: Seconds after which the reservation of a crashed process expires.
LEASE = 30.0

#: Hours for which a key is kept.
KEPT_HOURS = 24

#: Earlier requests with the key: none; one that may have created something; one that was answered.
PriorUse = Literal["first", "unanswered", "answered"]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to execute a request with a key. `prior_use` is the state of earlier requests with it."""

    account_id: str
    key: str
    seed: str
    locked_until: datetime
    prior_use: PriorUse


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The first response. `body` is encrypted."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


# Insert a new key, or take over one whose reservation has expired or may be shared, as that of an answered request
# whose response is not stored.
RESERVE = """
INSERT INTO idempotency_keys AS stored (account_id, key, requested_by, fingerprint, seed, locked_until)
VALUES (%(account_id)s, %(key)s, %(user_id)s, %(fingerprint)s, %(seed)s,
        clock_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (account_id, key) DO UPDATE SET locked_until = excluded.locked_until
WHERE stored.fingerprint = excluded.fingerprint AND stored.body IS NULL
  AND (%(shared)s OR stored.status IS NOT NULL OR stored.locked_until <= clock_timestamp())
RETURNING seed, locked_until, status
"""

READ = """
SELECT requested_by, fingerprint, status, headers, body FROM idempotency_keys
WHERE account_id = %(account_id)s AND key = %(key)s
"""


def reserve(
    connection: Connection, account_id: str, key: str, fingerprint: bytes, *, user_id: str, shared: bool = False
) -> Reservation | StoredResponse | None:
    """Reserve a key of a user, or return the response stored for it; None while another request holds it.

    `shared` reservations are given to concurrent requests, if the endpoint itself finds what an earlier one created.
    Raises UnprocessableRequest if the user has used the key for another request.
    """
    seed = new_id("seed")
    parameters = {
        "account_id": account_id, "key": key, "user_id": user_id, "fingerprint": fingerprint, "seed": seed
    }  # fmt: skip
    row = fetch_one(connection, RESERVE, {**parameters, "lease": LEASE, "shared": shared})
    if row is not None:
        prior_use: PriorUse = "answered" if row["status"] else "first" if row["seed"] == seed else "unanswered"
        return Reservation(account_id, key, row["seed"], row["locked_until"], prior_use)
    stored = fetch_one(connection, READ, parameters)
    if stored is None:
        return None  # it was deleted meanwhile: its request was rejected
    if stored["fingerprint"] != fingerprint and stored["requested_by"] not in (None, user_id):
        # Another member uses the same key. Processes of the previous version know one row per account and key, so only
        # the second user's has another name.
        own_key = f"{user_id} {key}"
        return reserve(connection, account_id, own_key, fingerprint, user_id=user_id, shared=shared)
    if stored["fingerprint"] != fingerprint:
        raise UnprocessableRequest("This Idempotency-Key was used with another request.", param="Idempotency-Key",
                       code="idempotency_key_reused")  # fmt: skip
    if stored["body"] is None:
        return None
    return StoredResponse(stored["status"], [(name, value) for name, value in stored["headers"]], stored["body"])


# Taking over a reservation changes locked_until: the statements below match only the holder's own.
EXTEND = """
UPDATE idempotency_keys SET locked_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE account_id = %(account_id)s AND key = %(key)s AND locked_until = %(locked_until)s AND status IS NULL
RETURNING locked_until
"""


def extend(connection: Connection, reservation: Reservation) -> Reservation | None:
    """Extend a reservation. Returns None if it was lost."""
    row = fetch_one(connection, EXTEND, {**_parameters(reservation), "lease": LEASE})
    return replace(reservation, locked_until=row["locked_until"]) if row else None


STORE_RESPONSE = """
UPDATE idempotency_keys SET status = %(status)s, headers = %(headers)s, body = %(body)s
WHERE account_id = %(account_id)s AND key = %(key)s AND seed = %(seed)s AND status IS NULL
"""


def store_response(
    connection: Connection,
    reservation: Reservation,
    status: int,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> None:
    """Store the first response; without a body, only that there was one."""
    connection.execute(
        STORE_RESPONSE, {**_parameters(reservation), "status": status, "headers": Jsonb(list(headers)), "body": body}
    )


DELETE = """
DELETE FROM idempotency_keys
WHERE account_id = %(account_id)s AND key = %(key)s AND locked_until = %(locked_until)s AND status IS NULL
"""

OPEN = """
UPDATE idempotency_keys SET locked_until = clock_timestamp()
WHERE account_id = %(account_id)s AND key = %(key)s AND locked_until = %(locked_until)s AND status IS NULL
"""


def release(connection: Connection, reservation: Reservation, *, created_nothing: bool) -> None:
    """Release a reservation. It is deleted if nothing can have been created under it; otherwise its seed is kept."""
    unused = created_nothing and reservation.prior_use == "first"
    connection.execute(DELETE if unused else OPEN, _parameters(reservation))


PRUNE = """
DELETE FROM idempotency_keys WHERE (account_id, key) IN (
    SELECT account_id, key FROM idempotency_keys
    WHERE created_at < now() - make_interval(hours => %(hours)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of keys older than KEPT_HOURS. Returns how many."""
    return connection.execute(PRUNE, {"hours": KEPT_HOURS, "batch": batch}).rowcount


def _parameters(reservation: Reservation) -> dict[str, object]:
    return {
        "account_id": reservation.account_id,
        "key": reservation.key,
        "seed": reservation.seed,
        "locked_until": reservation.locked_until,
    }
