"""The books of the simulated gateway: charges, refunds and payment methods. Only `gateways/simulator.py` uses them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.billing.currencies import ZERO
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class SimulatedObject:
    """A row of `simulated_objects`."""

    id: str
    kind: Literal["charge", "refund", "method"]
    idempotency_key: str | None
    customer: str
    parent_id: str | None
    state: str
    currency: str = ""
    amount: Decimal = ZERO
    fee: Decimal = ZERO
    returned: Decimal = ZERO
    disputed: Decimal = ZERO
    details: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None


COLUMNS = columns(SimulatedObject)

INSERT = """
INSERT INTO simulated_objects (id, kind, idempotency_key, customer, parent_id, state, currency, amount, fee, disputed,
                               details)
VALUES (%(id)s, %(kind)s, %(idempotency_key)s, %(customer)s, %(parent_id)s, %(state)s, %(currency)s, %(amount)s,
        %(fee)s, %(disputed)s, %(details)s)
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING id
"""


def insert(connection: Connection, item: SimulatedObject) -> bool:
    """Insert an object. Returns False if its idempotency key was used before."""
    parameters = {name: getattr(item, name) for name in SimulatedObject.__slots__}
    return fetch_one(connection, INSERT, {**parameters, "details": Jsonb(dict(item.details))}) is not None


READ = f"SELECT {COLUMNS} FROM simulated_objects WHERE id = %(id)s"
LOCK = f"{READ} FOR UPDATE"
FIND = f"SELECT {COLUMNS} FROM simulated_objects WHERE idempotency_key = %(key)s"


def read(connection: Connection, object_id: str) -> SimulatedObject | None:
    """Return an object."""
    return _optional(fetch_one(connection, READ, {"id": object_id}))


def lock(connection: Connection, object_id: str) -> SimulatedObject | None:
    """Return an object and lock it until the transaction ends."""
    return _optional(fetch_one(connection, LOCK, {"id": object_id}))


def find(connection: Connection, key: str) -> SimulatedObject | None:
    """Return the object with an idempotency key."""
    return _optional(fetch_one(connection, FIND, {"key": key}))


LIST_CHARGES = f"""
SELECT {COLUMNS} FROM simulated_objects
WHERE kind = 'charge' AND state = 'succeeded' AND created_at >= %(start)s AND created_at < %(end)s AND id > %(after)s
ORDER BY id LIMIT %(limit)s
"""


def list_charges(
    connection: Connection, start: datetime, end: datetime, *, after: str, limit: int
) -> list[SimulatedObject]:
    """Return at most `limit` charges that have succeeded and were created in a time, with ids after one."""
    parameters = {"start": start, "end": end, "after": after, "limit": limit}
    return [SimulatedObject(**row) for row in fetch_all(connection, LIST_CHARGES, parameters)]


CHANGE_STATE = f"""
UPDATE simulated_objects SET state = %(state)s WHERE id = %(id)s AND state = %(from_state)s RETURNING {COLUMNS}
"""


def change_state(connection: Connection, object_id: str, state: str, *, from_state: str) -> SimulatedObject | None:
    """Change the state. Returns None if the object has another one than `from_state`."""
    parameters = {"id": object_id, "state": state, "from_state": from_state}
    return _optional(fetch_one(connection, CHANGE_STATE, parameters))


SET_DISPUTED = f"""
UPDATE simulated_objects
SET disputed = %(disputed)s, details = details || jsonb_build_object('lost', %(lost)s::text)
WHERE id = %(id)s AND kind = 'charge' AND state = 'succeeded' RETURNING {COLUMNS}
"""


def set_disputed(
    connection: Connection, charge_id: str, disputed: Decimal, lost: Decimal = ZERO
) -> SimulatedObject | None:
    """Set what the bank has taken back of a charge, and what it keeps. Returns None for one that has not succeeded."""
    parameters = {"id": charge_id, "disputed": disputed, "lost": str(lost)}
    return _optional(fetch_one(connection, SET_DISPUTED, parameters))


ADD_RETURNED = "UPDATE simulated_objects SET returned = returned + %(amount)s WHERE id = %(id)s"


def add_returned(connection: Connection, charge_id: str, amount: Decimal) -> None:
    """Add to what was given back of a charge."""
    connection.execute(ADD_RETURNED, {"id": charge_id, "amount": amount})


def _optional(row: dict[str, Any] | None) -> SimulatedObject | None:
    return SimulatedObject(**row) if row else None
