"""The calls of a payment gateway.

A call that changes something has an idempotency key, the id of our payment or refund, so that a repeated one has no
further effect. Its outcome can be looked up by that key. Every call may raise GatewayFailed, after which nobody knows
what happened, and `PermanentFailure` for a request that the gateway refuses as malformed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from models.billing.payments import GatewayName, PaymentOutcome
from models.billing.refunds import RefundOutcome
from models.platform.errors import SanghaError


class GatewayFailed(SanghaError):
    """The gateway did not answer, or with an error of its own. The call may have had its effect."""


class CustomerMissing(GatewayFailed):
    """The gateway does not have the customer: it was deleted there, or is one of the gateway's other mode."""


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """A payment to make while the customer is away.

    customer, method  ids at the gateway; None: the account has none there
    created_at        when the payment was created: no call for it was made before
    """

    payment_id: str
    account_id: str
    amount: Decimal
    currency: str
    customer: str | None
    method: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """A part of a payment to give back. `gateway_refund_id` is its id at the gateway, if it is known."""

    refund_id: str
    payment_id: str
    gateway_payment_id: str
    amount: Decimal
    currency: str
    gateway_refund_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredMethod:
    """A payment method that the gateway has stored for an account. `label` is such as 'Visa 4242'."""

    account_id: str
    gateway_method_id: str
    label: str


@dataclass(frozen=True, slots=True)
class MethodSetUp:
    """The page on which the customer adds a payment method, or the method, if it needs no page."""

    url: str | None = None
    method: StoredMethod | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """The parts of an event that are stored beside its payload."""

    event_id: str
    type: str


@dataclass(frozen=True, slots=True)
class PaymentNews:
    """The present state of a payment, which an event was about. `payment_id` is ours, if the gateway has it."""

    payment_id: str | None
    outcome: PaymentOutcome


@dataclass(frozen=True, slots=True)
class RefundNews:
    """The present state of a refund. `refund_id` is ours; None: it was made at the gateway itself."""

    refund_id: str | None
    gateway_payment_id: str
    amount: Decimal
    outcome: RefundOutcome


@dataclass(frozen=True, slots=True)
class MethodDetached:
    """A payment method was removed at the gateway."""

    gateway_method_id: str


@dataclass(frozen=True, slots=True)
class BookedPayment:
    """A payment that has arrived, by the gateway's own books.

    payment_id, account_id  ours, if the gateway has them; None: it was not made by Sangha
    disputed                what customers' banks have taken back, and what of it they keep, together
    at                      when it arrived
    """

    payment_id: str | None
    account_id: str | None
    gateway_payment_id: str
    amount: Decimal
    currency: str
    refunded: Decimal
    disputed: Decimal
    at: datetime


#: What an event is about, as the gateway has it now. None: nothing of ours.
News = PaymentNews | RefundNews | StoredMethod | MethodDetached | None


class Gateway(Protocol):
    """A payment gateway."""

    name: GatewayName

    def charge(self, request: ChargeRequest) -> PaymentOutcome:
        """Make a payment. One that is declined is an outcome, no error."""

    def look_up(self, request: ChargeRequest) -> PaymentOutcome | None:
        """Return the outcome of a payment; None if the gateway has none and a call under way has the same key."""

    def cancel(self, request: ChargeRequest) -> PaymentOutcome:
        """Give up a payment that waits for its customer. Returns its state, which may be another one by now."""

    def refund(self, request: RefundRequest) -> RefundOutcome:
        """Give back a part of a payment."""

    def look_up_refund(self, request: RefundRequest) -> RefundOutcome | None:
        """Return the outcome of a refund, or None like `look_up`."""

    def create_customer(self, account_id: str, name: str, *, instead_of: str = "") -> str:
        """Create the account's customer, once, or one instead of a customer that is missing. Returns its id."""

    def delete_customer(self, customer: str) -> None:
        """Delete a customer with the stored payment methods. One that is gone already is no error."""

    def set_up_method(
        self, account_id: str, customer: str, *, return_url: str, method: str | None = None
    ) -> MethodSetUp:
        """Begin to store a payment method. `method` names one of the simulator's. Raises CustomerMissing."""

    def detach_method(self, gateway_method_id: str) -> None:
        """Delete a stored payment method."""

    def portal(self, customer: str, *, return_url: str) -> str:
        """Return the URL of a page on which the customer manages payment methods. Raises Conflict without one."""

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Notice:
        """Return what a webhook says that it is. Raises InvalidRequest unless the gateway has signed it just now."""

    def fetch(self, payload: str) -> News:
        """Ask for the present state of what an event is about."""

    def list_payments(self, start: datetime, end: datetime) -> Iterator[BookedPayment]:
        """Yield the payments that were created there from `start` until before `end` and have arrived, page by page."""

    def read_payment(self, gateway_payment_id: str) -> BookedPayment | None:
        """Return a payment that has arrived. None if it has not, or does not exist."""
