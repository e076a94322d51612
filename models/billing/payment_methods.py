"""Payment methods: what a gateway has stored to charge an account again. Numbers of cards never reach us."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.billing import billing_details
from models.billing.payments import GatewayName
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import NotFound
from models.platform.ids import new_id
from models.platform.records import columns


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A row of `payment_methods`. `label` is such as 'Visa 4242'."""

    id: str
    account_id: str
    gateway: GatewayName
    gateway_method_id: str
    label: str
    is_default: bool
    created_at: datetime
    detached_at: datetime | None


COLUMNS = columns(PaymentMethod)

# The first one is the default. One that was detached and is added again is attached again.
INSERT = f"""
INSERT INTO payment_methods AS method (id, account_id, gateway, gateway_method_id, label, is_default)
SELECT %(id)s, %(account_id)s, %(gateway)s, %(gateway_method_id)s, %(label)s,
       NOT EXISTS (SELECT FROM payment_methods WHERE account_id = %(account_id)s AND detached_at IS NULL AND is_default)
ON CONFLICT (gateway, gateway_method_id) DO UPDATE
SET label = excluded.label, detached_at = NULL,
    is_default = CASE WHEN method.detached_at IS NULL THEN method.is_default ELSE excluded.is_default END
WHERE method.account_id = %(account_id)s
RETURNING {columns(PaymentMethod, "method")}
"""


def add(
    connection: Connection, account_id: str, *, gateway: GatewayName, gateway_method_id: str, label: str
) -> PaymentMethod | None:
    """Add a method that the gateway has stored. Returns None if it is another account's."""
    billing_details.ensure(connection, account_id)
    billing_details.lock(connection, account_id)  # one default at a time
    parameters = {
        "id": new_id("pm"),
        "account_id": account_id,
        "gateway": gateway,
        "gateway_method_id": gateway_method_id,
        "label": label[:100],
    }
    row = fetch_one(connection, INSERT, parameters)
    return PaymentMethod(**row) if row else None


READ = f"""
SELECT {COLUMNS} FROM payment_methods
WHERE id = %(id)s AND account_id = %(account_id)s AND detached_at IS NULL
"""


def read(connection: Connection, method_id: str, account_id: str) -> PaymentMethod:
    """Return an attached method of the account. Raises NotFound."""
    row = fetch_one(connection, READ, {"id": method_id, "account_id": account_id})
    return PaymentMethod(**_required(row, method_id))


READ_CHARGED = f"SELECT {COLUMNS} FROM payment_methods WHERE id = %(id)s AND account_id = %(account_id)s"


def read_charged(connection: Connection, method_id: str, account_id: str) -> PaymentMethod | None:
    """Return the method of a payment, also if it was detached since."""
    row = fetch_one(connection, READ_CHARGED, {"id": method_id, "account_id": account_id})
    return PaymentMethod(**row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM payment_methods
WHERE account_id = %(account_id)s AND detached_at IS NULL AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_methods(
    connection: Connection, account_id: str, *, after: str | None = None, limit: int = 20
) -> list[PaymentMethod]:
    """Return at most `limit` attached methods of the account, newest first, older than the method `after`."""
    rows = fetch_all(connection, LIST, {"account_id": account_id, "after": after, "limit": limit})
    return [PaymentMethod(**row) for row in rows]


CLEAR_DEFAULT = """
UPDATE payment_methods SET is_default = false WHERE account_id = %(account_id)s AND is_default AND id <> %(id)s
"""

SET_DEFAULT = f"""
UPDATE payment_methods SET is_default = true
WHERE id = %(id)s AND account_id = %(account_id)s AND detached_at IS NULL
RETURNING {COLUMNS}
"""


def set_default(connection: Connection, method_id: str, account_id: str) -> PaymentMethod:
    """Make a method the account's default. Raises NotFound."""
    read(connection, method_id, account_id)
    billing_details.lock(connection, account_id)
    parameters = {"id": method_id, "account_id": account_id}
    connection.execute(CLEAR_DEFAULT, parameters)
    return PaymentMethod(**_required(fetch_one(connection, SET_DEFAULT, parameters), method_id))


DETACH = f"""
UPDATE payment_methods SET detached_at = now(), is_default = false
WHERE id = %(id)s AND account_id = %(account_id)s AND detached_at IS NULL
RETURNING {COLUMNS}
"""

PROMOTE = """
UPDATE payment_methods SET is_default = true
WHERE id = (SELECT max(id) FROM payment_methods WHERE account_id = %(account_id)s AND detached_at IS NULL)
  AND NOT EXISTS (SELECT FROM payment_methods
                  WHERE account_id = %(account_id)s AND detached_at IS NULL AND is_default)
"""


def detach(connection: Connection, method_id: str, account_id: str) -> PaymentMethod:
    """Stop using a method. If it was the default, the newest one left is. Raises NotFound."""
    read(connection, method_id, account_id)
    billing_details.lock(connection, account_id)
    parameters = {"id": method_id, "account_id": account_id}
    detached = PaymentMethod(**_required(fetch_one(connection, DETACH, parameters), method_id))
    connection.execute(PROMOTE, parameters)
    return detached


def _required(row: dict[str, Any] | None, method_id: str) -> dict[str, Any]:
    if row is None:
        raise NotFound(f"Payment method with id '{method_id}' not found.", param="payment_method_id")
    return row


READ_CUSTOMER = """
SELECT gateway_customers ->> %(gateway)s AS customer FROM billing_details WHERE account_id = %(account_id)s
"""


def read_customer(connection: Connection, account_id: str, gateway: GatewayName) -> str | None:
    """Return the id of the account's customer at a gateway."""
    row = fetch_one(connection, READ_CUSTOMER, {"account_id": account_id, "gateway": gateway})
    return row["customer"] if row else None


READ_CUSTOMERS = """
SELECT gateways.name AS gateway, gateways.customer
FROM billing_details CROSS JOIN jsonb_each_text(gateway_customers) AS gateways (name, customer)
WHERE account_id = %(account_id)s ORDER BY gateways.name
"""


def read_customers(connection: Connection, account_id: str) -> list[tuple[str, str]]:
    """Return (gateway, id) of the account's customers at all gateways."""
    return [
        (row["gateway"], row["customer"]) for row in fetch_all(connection, READ_CUSTOMERS, {"account_id": account_id})
    ]


# The first one is kept: payment methods belong to it.
STORE_CUSTOMER = """
UPDATE billing_details
SET gateway_customers = jsonb_build_object(%(gateway)s::text, %(customer)s::text) || gateway_customers
WHERE account_id = %(account_id)s
RETURNING gateway_customers ->> %(gateway)s AS customer
"""


def store_customer(connection: Connection, account_id: str, gateway: GatewayName, customer: str) -> str:
    """Store the id of the account's customer at a gateway. Returns the one that was stored first."""
    billing_details.ensure(connection, account_id)
    parameters = {"account_id": account_id, "gateway": gateway, "customer": customer}
    row = fetch_one(connection, STORE_CUSTOMER, parameters)
    assert row is not None
    return str(row["customer"])


REPLACE_CUSTOMER = """
UPDATE billing_details
SET gateway_customers = gateway_customers || jsonb_build_object(%(gateway)s::text, %(customer)s::text)
WHERE account_id = %(account_id)s AND gateway_customers ->> %(gateway)s = %(missing)s
RETURNING account_id
"""

DETACH_ALL = """
UPDATE payment_methods SET detached_at = now(), is_default = false
WHERE account_id = %(account_id)s AND gateway = %(gateway)s AND detached_at IS NULL
"""


def replace_customer(connection: Connection, account_id: str, gateway: GatewayName, missing: str, customer: str) -> str:
    """Store a customer instead of one that is missing at the gateway, and detach its methods.

    Returns the stored one, which is another if it was replaced before.
    """
    parameters = {"account_id": account_id, "gateway": gateway, "customer": customer, "missing": missing}
    if fetch_one(connection, REPLACE_CUSTOMER, parameters):
        connection.execute(DETACH_ALL, parameters)
        return customer
    return read_customer(connection, account_id, gateway) or customer


DETACHED_BY_GATEWAY = """
SELECT id, account_id FROM payment_methods
WHERE gateway = %(gateway)s AND gateway_method_id = %(gateway_method_id)s AND detached_at IS NULL
"""


def detach_any(connection: Connection, gateway: GatewayName, gateway_method_id: str) -> bool:
    """Stop using a method that was removed at the gateway. Returns False if no account has it."""
    parameters = {"gateway": gateway, "gateway_method_id": gateway_method_id}
    row = fetch_one(connection, DETACHED_BY_GATEWAY, parameters)
    if row is None:
        return False
    detach(connection, row["id"], row["account_id"])
    return True
