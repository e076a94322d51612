"""The gateway `test`: an honest simulator of a payment provider, with books of its own.

Its books are a table that only it reads and writes, in transactions of its own, so that they show what happened to a
charge whose caller was killed. A repeated idempotency key has the outcome of the first call. The payment method
decides what becomes of a charge:

    pm_test_visa                 succeeds; so does a charge without a method
    pm_test_declined             is declined
    pm_test_insufficient_funds   is declined, since the customer has not enough money
    pm_test_action_required      waits until the customer confirms it at its URL (3-D Secure)
    pm_test_timeout              succeeds, but the first call times out
    pm_test_slow                 succeeds after three seconds
    pm_test_duplicate_events     succeeds, and its event is sent twice
    pm_test_disputed             succeeds, and the customer's bank takes the money back until it decides
    pm_test_dispute_lost         succeeds, and the customer's bank takes the money back for good
    pm_test_refund_pending       succeeds; a refund of it is pending until it is looked up
    pm_test_refund_timeout       succeeds; a refund of it succeeds, but its first call times out
    pm_test_refund_fails         succeeds, but cannot be refunded

Every change sends an event, as a provider's webhook does.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from models.billing import simulated_objects
from models.billing.currencies import ZERO, rounded
from models.billing.payments import GatewayName, PaymentOutcome
from models.billing.refunds import RefundOutcome
from models.billing.simulated_objects import SimulatedObject
from models.platform.database import Connection, Database
from models.platform.errors import Conflict, InvalidRequest, NotFound
from models.platform.ids import new_id
from pipelines.billing import gateway_notices
from pipelines.billing.gateways import signatures
from pipelines.billing.gateways.gateway import (
    BookedPayment,
    ChargeRequest,
    GatewayFailed,
    MethodDetached,
    MethodSetUp,
    News,
    Notice,
    PaymentNews,
    RefundNews,
    RefundRequest,
    StoredMethod,
)

#: Payment methods, and their labels.
METHODS: Mapping[str, str] = {
    "pm_test_visa": "Visa 4242",
    "pm_test_declined": "Visa 0002",
    "pm_test_insufficient_funds": "Visa 9995",
    "pm_test_action_required": "Visa 3184",
    "pm_test_timeout": "Visa 0001",
    "pm_test_slow": "Visa 0003",
    "pm_test_duplicate_events": "Visa 0004",
    "pm_test_disputed": "Visa 0259",
    "pm_test_dispute_lost": "Visa 0260",
    "pm_test_refund_pending": "Visa 5125",
    "pm_test_refund_timeout": "Visa 5127",
    "pm_test_refund_fails": "Visa 5126",
}

DECLINES: Mapping[str, tuple[str, str]] = {
    "pm_test_declined": ("card_declined", "The card was declined."),
    "pm_test_insufficient_funds": ("insufficient_funds", "The card has insufficient funds."),
}

#: The part of an amount that the simulator keeps.
FEE = Decimal("0.029")

#: Charges of a page of the books.
PAGE = 500

#: Seconds that a slow charge takes.
SLOW = 3.0

#: The header with the signature of an event.
SIGNATURE_HEADER = "sangha-test-signature"


class Simulator:
    """The simulated gateway. `secret` signs its events; `address` is the URL that its pages are served at."""

    name: GatewayName = "test"

    def __init__(self, database: Database, secret: str, address: str) -> None:
        self._database = database
        self._secret = secret
        self._address = address

    def charge(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway."""
        card = self._card_of(request.method)
        if card == "pm_test_slow":
            time.sleep(SLOW)
        with self._database.transaction() as connection:
            is_new = simulated_objects.insert(connection, _charged(request, card))
            charge = simulated_objects.find(connection, request.payment_id)
            assert charge is not None
            if is_new:
                _send_event(connection, charge, f"charge.{charge.state}", twice=card == "pm_test_duplicate_events")
        if is_new and card == "pm_test_timeout":
            raise GatewayFailed("The simulated gateway timed out after it had accepted the charge.")
        return self._outcome(charge)

    def look_up(self, request: ChargeRequest) -> PaymentOutcome | None:
        """See Gateway."""
        with self._database.connection() as connection:
            charge = simulated_objects.find(connection, request.payment_id)
        return self._outcome(charge) if charge else None

    def cancel(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway."""
        with self._database.connection() as connection:
            charge = simulated_objects.find(connection, request.payment_id)
        if charge is None:
            raise GatewayFailed("The simulated gateway has no such charge.")
        return self._outcome(self.answer(charge.id, confirmed=False))

    def answer(self, charge_id: str, *, confirmed: bool) -> SimulatedObject:
        """Do what the customer does on the page of a charge that waits. Raises NotFound. Later answers are ignored."""
        with self._database.transaction() as connection:
            state = "succeeded" if confirmed else "failed"
            changed = simulated_objects.change_state(connection, charge_id, state, from_state="requires_action")
            if changed is not None:
                _send_event(connection, changed, f"charge.{state}")
            charge = changed or simulated_objects.read(connection, charge_id)
        if charge is None or charge.kind != "charge":
            raise NotFound("There is no such charge.")
        return charge

    def dispute(self, charge_id: str, amount: Decimal, *, lost: Decimal = ZERO) -> None:
        """Set what the customer's bank has taken back of a charge, and what it has decided to keep."""
        with self._database.transaction() as connection:
            charge = simulated_objects.set_disputed(connection, charge_id, amount, lost)
            if charge is not None:
                _send_event(connection, charge, "dispute.updated")

    def refund(self, request: RefundRequest) -> RefundOutcome:
        """See Gateway."""
        with self._database.transaction() as connection:
            charge = simulated_objects.lock(connection, request.gateway_payment_id)
            earlier = simulated_objects.find(connection, request.refund_id)
            refund = earlier or self._make_refund(connection, request, charge)
        card = charge.details.get("card") if charge is not None and earlier is None else None
        if card == "pm_test_refund_timeout" and refund.state == "succeeded":
            raise GatewayFailed("The simulated gateway timed out after it had accepted the refund.")
        return _refund_outcome(refund)

    def _make_refund(
        self, connection: Connection, request: RefundRequest, charge: SimulatedObject | None
    ) -> SimulatedObject:
        fits = charge is not None and charge.state == "succeeded" and charge.returned + request.amount <= charge.amount
        refused = charge is None or charge.details.get("card") == "pm_test_refund_fails"
        refund = _refunded(request, charge, succeeds=fits and not refused)
        simulated_objects.insert(connection, refund)
        if refund.state != "failed":
            simulated_objects.add_returned(connection, request.gateway_payment_id, request.amount)
        _send_event(connection, refund, f"refund.{refund.state}")
        return refund

    def look_up_refund(self, request: RefundRequest) -> RefundOutcome | None:
        """See Gateway. One that is pending has succeeded by now."""
        with self._database.transaction() as connection:
            refund = simulated_objects.find(connection, request.refund_id)
            ended = refund and simulated_objects.change_state(connection, refund.id, "succeeded", from_state="pending")
            if ended:
                _send_event(connection, ended, "refund.succeeded")
        refund = ended or refund
        return _refund_outcome(refund) if refund else None

    def create_customer(self, account_id: str, name: str, *, instead_of: str = "") -> str:
        """See Gateway."""
        return account_id

    def delete_customer(self, customer: str) -> None:
        """See Gateway."""

    def set_up_method(
        self, account_id: str, customer: str, *, return_url: str, method: str | None = None
    ) -> MethodSetUp:
        """See Gateway. Raises InvalidRequest for an unknown method."""
        if method is not None:
            return MethodSetUp(method=self.store_method(customer, method))
        ticket = signatures.sign(customer.encode(), self._secret)
        return MethodSetUp(url=f"{self._address}/billing/simulator/methods/{customer}?ticket={ticket}")

    def store_method(self, customer: str, card: str) -> StoredMethod:
        """Store a payment method. Raises InvalidRequest."""
        if card not in METHODS:
            raise InvalidRequest(f"'method' should be one of {', '.join(METHODS)}.", param="method")
        method = SimulatedObject(
            new_id(card), "method", None, customer, None, "attached", details={"card": card, "label": METHODS[card]}
        )
        with self._database.transaction() as connection:
            simulated_objects.insert(connection, method)
            _send_event(connection, method, "method.attached")
        return _stored_method(method)

    def check_ticket(self, customer: str, ticket: str) -> None:
        """Check that `set_up_method` has made a link. Raises InvalidRequest."""
        try:
            signatures.verify(customer.encode(), ticket, self._secret)
        except InvalidRequest:
            message = "The link is not valid, or is more than five minutes old."
            raise InvalidRequest(message, param="ticket", code="invalid_signature") from None

    def detach_method(self, gateway_method_id: str) -> None:
        """See Gateway."""
        with self._database.transaction() as connection:
            method = simulated_objects.change_state(connection, gateway_method_id, "detached", from_state="attached")
            if method is not None:
                _send_event(connection, method, "method.detached")

    def portal(self, customer: str, *, return_url: str) -> str:
        """See Gateway."""
        raise Conflict("The simulated gateway has no portal.", code="no_portal")

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Notice:
        """See Gateway."""
        signatures.verify(body, headers.get(SIGNATURE_HEADER, ""), self._secret)
        event = orjson.loads(body)
        return Notice(event["id"], event["type"])

    def fetch(self, payload: str) -> News:
        """See Gateway."""
        with self._database.connection() as connection:
            found = simulated_objects.read(connection, str(orjson.loads(payload).get("object", "")))
            if found is None:
                return None
            if found.kind == "charge":
                return PaymentNews(found.idempotency_key, self._outcome(found))
        if found.kind == "refund":
            return RefundNews(found.idempotency_key, found.parent_id or "", found.amount, _refund_outcome(found))
        return _stored_method(found) if found.state == "attached" else MethodDetached(found.id)

    def list_payments(self, start: datetime, end: datetime) -> Iterator[BookedPayment]:
        """See Gateway."""
        last = ""
        while True:
            with self._database.connection() as connection:
                charges = simulated_objects.list_charges(connection, start, end, after=last, limit=PAGE)
            yield from map(_booked, charges)
            if len(charges) < PAGE:
                return
            last = charges[-1].id

    def read_payment(self, gateway_payment_id: str) -> BookedPayment | None:
        """See Gateway."""
        with self._database.connection() as connection:
            charge = simulated_objects.read(connection, gateway_payment_id)
        return _booked(charge) if charge and (charge.kind, charge.state) == ("charge", "succeeded") else None

    def _card_of(self, method: str | None) -> str:
        return method.rpartition("_")[0] if method else "pm_test_visa"

    def _outcome(self, charge: SimulatedObject) -> PaymentOutcome:
        waits = charge.state == "requires_action"
        code, message = DECLINES.get(charge.details["card"], ("action_failed", "The customer did not confirm it."))
        return PaymentOutcome(
            charge.state,  # type: ignore[arg-type]
            charge.id,
            datetime.now(UTC),
            fee=charge.fee if charge.state == "succeeded" else ZERO,
            action_url=f"{self._address}/billing/simulator/charges/{charge.id}" if waits else None,
            error={"code": code, "message": message} if charge.state == "failed" else None,
            disputed=charge.disputed,
            lost=Decimal(charge.details.get("lost", "0")),
        )


def _charged(request: ChargeRequest, card: str) -> SimulatedObject:
    state = "failed" if card in DECLINES else "requires_action" if card == "pm_test_action_required" else "succeeded"
    return SimulatedObject(
        new_id("ch_test"), "charge", request.payment_id, request.account_id, None, state, request.currency,
        request.amount, fee=rounded(request.amount * FEE, request.currency),
        disputed=request.amount if card == "pm_test_disputed" else ZERO,
        details={"card": card, "lost": str(request.amount if card == "pm_test_dispute_lost" else ZERO)},
    )  # fmt: skip


def _booked(charge: SimulatedObject) -> BookedPayment:
    disputed = charge.disputed + Decimal(charge.details.get("lost", "0"))
    return BookedPayment(
        charge.idempotency_key, charge.customer, charge.id, charge.amount, charge.currency, charge.returned, disputed,
        charge.created_at or datetime.now(UTC),
    )  # fmt: skip


def _refunded(request: RefundRequest, charge: SimulatedObject | None, *, succeeds: bool) -> SimulatedObject:
    waits = charge is not None and charge.details.get("card") == "pm_test_refund_pending"
    state = "failed" if not succeeds else "pending" if waits else "succeeded"
    return SimulatedObject(
        new_id("re_test"), "refund", request.refund_id, charge.customer if charge else "",
        charge.id if charge else None, state, request.currency, request.amount,
    )  # fmt: skip


def _refund_outcome(refund: SimulatedObject) -> RefundOutcome:
    if refund.state != "failed":
        return RefundOutcome("pending" if refund.state == "pending" else "succeeded", refund.id)
    return RefundOutcome("failed", refund.id, {"code": "refund_failed", "message": "The charge cannot be refunded."})


def _stored_method(method: SimulatedObject) -> StoredMethod:
    return StoredMethod(method.customer, method.id, method.details["label"])


def _send_event(connection: Connection, subject: SimulatedObject, event_type: str, *, twice: bool = False) -> None:
    """Send an event about an object, whose delivery is as certain as that of a provider that tries for days."""
    payload: dict[str, Any] = {"id": new_id("evt_test"), "type": event_type, "object": subject.id}
    for _ in range(2 if twice else 1):
        notice = Notice(payload["id"], event_type)
        gateway_notices.accept(connection, "test", notice, orjson.dumps(payload).decode())
