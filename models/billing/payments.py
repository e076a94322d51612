"""Payments: each moves one amount from a customer to us, by a job `payment.charge`.

    pending ─┬─► requires_action ─┬─► succeeded ─┬─► refunded     all of it was given back
             │         │          │     ▲  ▲     └─► disputed     the customer's bank took it, or a part of it, back
             │         ▼          │     │  └─────────────┘ won
             └──────► failed ─────┴─────┘                         money that arrives late is money, too

No state goes backwards. What a gateway says late or twice changes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.billing.currencies import ZERO, check_amount
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.errors import NotFound
from models.platform.ids import new_id
from models.platform.records import columns

PaymentState = Literal["pending", "requires_action", "succeeded", "failed", "refunded", "disputed"]
GatewayName = Literal["test", "stripe", "manual"]

#: The amounts of an outcome.
AMOUNTS = ("fee", "disputed", "lost")

#: The states in which a payment has not brought money.
UNPAID: tuple[PaymentState, ...] = ("pending", "requires_action", "failed")


@dataclass(frozen=True, slots=True)
class Payment:
    """A row of `payments`. `refunded` includes refunds that are under way.

    disputed_amount  what the customer's bank has taken back and has not decided
    lost_amount      what it has decided against us
    """

    id: str
    account_id: str
    invoice_id: str | None
    job_id: str | None
    payment_method_id: str | None
    gateway: GatewayName
    gateway_payment_id: str | None
    currency: str
    amount: Decimal
    fee: Decimal
    refunded: Decimal
    state: PaymentState
    action_url: str | None
    error: Mapping[str, Any] | None
    gateway_time: datetime | None
    created_at: datetime
    ended_at: datetime | None
    disputed_amount: Decimal
    lost_amount: Decimal


@dataclass(frozen=True, slots=True)
class PaymentOutcome:
    """The state of a payment at its gateway.

    at         when the gateway was asked
    fee        what the gateway keeps
    error      `{"code", "message"}` of one that failed
    disputed   what the customer's bank has taken back and has not decided
    lost       what it has decided against us
    """

    state: Literal["pending", "requires_action", "succeeded", "failed"]
    gateway_payment_id: str | None
    at: datetime
    fee: Decimal = ZERO
    action_url: str | None = None
    error: Mapping[str, Any] | None = None
    disputed: Decimal = ZERO
    lost: Decimal = ZERO

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON, for `effects`. The previous version does not know `lost`."""
        amounts = {name: str(getattr(self, name)) for name in AMOUNTS if name != "lost" or self.lost}
        rest = {name: value for name, value in asdict(self).items() if name not in AMOUNTS}
        return {**rest, "at": self.at.isoformat(), **amounts}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "PaymentOutcome":
        """Return the outcome that `to_json` wrote."""
        amounts = {name: Decimal(stored[name]) for name in AMOUNTS if name in stored}
        return cls(**{**stored, "at": datetime.fromisoformat(stored["at"]), **amounts})


COLUMNS = columns(Payment)

# Attempts at the charge must all ask for the same, so the payment method is chosen here.
INSERT = f"""
INSERT INTO payments (id, account_id, invoice_id, job_id, payment_method_id, gateway, currency, amount, state)
SELECT %(id)s, %(account_id)s, %(invoice_id)s, %(job_id)s,
       (SELECT id FROM payment_methods
        WHERE account_id = %(account_id)s AND gateway = %(gateway)s AND detached_at IS NULL
          AND (id = %(payment_method_id)s OR %(payment_method_id)s::text IS NULL AND is_default)),
       %(gateway)s, %(currency)s, %(amount)s, 'pending'
RETURNING {COLUMNS}
"""


def new_payment(
    connection: Connection,
    account_id: str,
    *,
    invoice_id: str | None,
    amount: Decimal,
    currency: str,
    gateway: GatewayName,
    payment_method_id: str | None = None,
    owner_id: str | None = None,
) -> tuple[Payment, NewJob]:
    """Insert a pending payment, and return it with the job that charges it, which the caller inserts.

    payment_method_id  None: the account's default at the gateway, if it has one
    owner_id           the user who may follow the job's events

    Raises InvalidRequest for an amount that is not above zero or has a fraction of the currency's minor unit, and
    NotFound for a method that the account does not have at the gateway.
    """
    payment_id = new_id("pay")
    job = NewJob(
        "payment.charge",
        account_id,
        {"payment_id": payment_id},
        unique_key=f"payment.charge {payment_id}",
        owner_id=owner_id,
    )
    parameters = {
        "id": payment_id,
        "account_id": account_id,
        "invoice_id": invoice_id,
        "job_id": job.id,
        "payment_method_id": payment_method_id,
        "gateway": gateway,
        "currency": currency,
        "amount": check_amount(amount, currency),
    }
    row = fetch_one(connection, INSERT, parameters)
    assert row is not None
    if payment_method_id is not None and row["payment_method_id"] is None:
        raise NotFound(f"Payment method with id '{payment_method_id}' not found.", param="payment_method_id")
    return Payment(**row), job


def request_payment(
    connection: Connection,
    account_id: str,
    *,
    invoice_id: str | None,
    amount: Decimal,
    currency: str,
    gateway: GatewayName,
    payment_method_id: str | None = None,
    owner_id: str | None = None,
) -> Payment:
    """Insert a pending payment and its job. Announce the job after the commit. Raises InvalidRequest."""
    payment, job = new_payment(
        connection,
        account_id,
        invoice_id=invoice_id,
        amount=amount,
        currency=currency,
        gateway=gateway,
        payment_method_id=payment_method_id,
        owner_id=owner_id,
    )
    enqueue(connection, job)
    return payment


READ = f"SELECT {COLUMNS} FROM payments WHERE id = %(id)s AND account_id = %(account_id)s"

LOCK = f"{READ} FOR NO KEY UPDATE"


def read(connection: Connection, payment_id: str, account_id: str) -> Payment:
    """Return a payment of the account. Raises NotFound."""
    return _one(connection, READ, payment_id, account_id)


def lock(connection: Connection, payment_id: str, account_id: str) -> Payment:
    """Return a payment of the account and lock it until the transaction ends. Raises NotFound."""
    return _one(connection, LOCK, payment_id, account_id)


LOCK_FOR_REFUND = """
SELECT payments.id FROM payments JOIN payments AS refunded ON refunded.invoice_id = payments.invoice_id
WHERE refunded.id = %(id)s AND refunded.account_id = %(account_id)s AND payments.account_id = %(account_id)s
ORDER BY payments.id FOR NO KEY UPDATE OF payments
"""


def lock_for_refund(connection: Connection, payment_id: str, account_id: str) -> Payment:
    """Lock a payment after the earlier ones of its invoice, which a credit note may refund, too. Raises NotFound."""
    connection.execute(LOCK_FOR_REFUND, {"id": payment_id, "account_id": account_id})
    return lock(connection, payment_id, account_id)


def _one(connection: Connection, statement: str, payment_id: str, account_id: str) -> Payment:
    row = fetch_one(connection, statement, {"id": payment_id, "account_id": account_id})
    if row is None:
        raise NotFound(f"Payment with id '{payment_id}' not found.", param="payment_id")
    return Payment(**row)


READ_ANY = f"SELECT {COLUMNS} FROM payments WHERE id = %(id)s"


def read_any(connection: Connection, payment_id: str) -> Payment | None:
    """Return a payment of any account: for operators and gateways."""
    row = fetch_one(connection, READ_ANY, {"id": payment_id})
    return Payment(**row) if row else None


READ_OF_GATEWAY = f"""
SELECT {COLUMNS} FROM payments WHERE gateway = %(gateway)s AND gateway_payment_id = %(gateway_payment_id)s
"""


def read_of_gateway(connection: Connection, gateway: str, gateway_payment_id: str) -> Payment | None:
    """Return the payment with this id at its gateway, of any account."""
    parameters = {"gateway": gateway, "gateway_payment_id": gateway_payment_id}
    row = fetch_one(connection, READ_OF_GATEWAY, parameters)
    return Payment(**row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM payments
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR id < %(after)s)
  AND (%(invoice_id)s::text IS NULL OR invoice_id = %(invoice_id)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_payments(
    connection: Connection,
    account_id: str,
    *,
    invoice_id: str | None = None,
    state: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[Payment]:
    """Return at most `limit` payments of the account, newest first, older than the payment `after`."""
    filters = {"invoice_id": invoice_id, "state": state}
    rows = fetch_all(connection, LIST, {"account_id": account_id, "after": after, "limit": limit, **filters})
    return [Payment(**row) for row in rows]


#: The states from which a payment may get another one by what its gateway says.
FORWARD: Mapping[PaymentState, tuple[PaymentState, ...]] = {
    "pending": (),
    "requires_action": ("pending",),
    "failed": ("pending", "requires_action"),
    "succeeded": ("pending", "requires_action", "failed"),
}

ADVANCE = f"""
UPDATE payments
SET state = %(state)s, gateway_payment_id = coalesce(%(gateway_payment_id)s, gateway_payment_id),
    fee = %(fee)s, action_url = %(action_url)s, error = %(error)s, gateway_time = greatest(gateway_time, %(at)s),
    ended_at = CASE WHEN %(state)s IN ('succeeded', 'failed') THEN now() END
WHERE id = %(id)s AND account_id = %(account_id)s AND state = ANY(%(from_states)s)
RETURNING {COLUMNS}
"""


def advance(connection: Connection, payment: Payment, outcome: PaymentOutcome) -> Payment | None:
    """Store a later state of a payment. Returns None if it has that state, or a later one, already."""
    parameters = {
        "id": payment.id,
        "account_id": payment.account_id,
        "state": outcome.state,
        "gateway_payment_id": outcome.gateway_payment_id,
        "fee": outcome.fee,
        "action_url": outcome.action_url,
        "error": Jsonb(dict(outcome.error)) if outcome.error else None,
        "at": outcome.at,
        "from_states": list(FORWARD[outcome.state]),
    }
    row = fetch_one(connection, ADVANCE, parameters)
    return Payment(**row) if row else None


STORE_ERROR = """
UPDATE payments SET error = %(error)s
WHERE id = %(id)s AND account_id = %(account_id)s AND state IN ('pending', 'requires_action')
"""


def store_error(connection: Connection, payment_id: str, account_id: str, error: Mapping[str, Any]) -> None:
    """Store why nobody knows yet what became of a payment. It stays pending."""
    connection.execute(STORE_ERROR, {"id": payment_id, "account_id": account_id, "error": Jsonb(dict(error))})
