"""The gateway `stripe`, by the official library.

A payment is an intent that is confirmed at once without the customer (`off_session`). If the bank wants the customer to
confirm it, it is confirmed again with a page to go to. Intents and refunds have our payment's or refund's id in their
metadata, by which they are found again: lists are consistent at once, Stripe's search is not.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import stripe

from models.billing.payments import GatewayName, PaymentOutcome
from models.billing.refunds import RefundOutcome
from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.billing.gateways.gateway import (
    BookedPayment,
    ChargeRequest,
    GatewayFailed,
    MethodDetached,
    MethodSetUp,
    News,
    Notice,
    PaymentNews,
    RefundRequest,
)
from pipelines.billing.gateways.signatures import TOLERANCE
from pipelines.billing.gateways.stripe_amounts import NotChargeable, to_stripe
from pipelines.billing.gateways.stripe_calls import (
    EXPANDED,
    accepts,
    answers,
    charge_options,
    charge_parameters,
    error_object,
    failed_outcome,
    to_plain,
)
from pipelines.billing.gateways.stripe_objects import (
    booked_payment,
    error_of,
    needs_customer,
    payment_outcome,
    refund_news,
    refund_outcome,
    stored_method,
)

log = logging.getLogger(__name__)

#: The version of Stripe's API that this code is written for. Stripe answers in it whatever the account's default is.
API_VERSION = "2026-10-28.endive"

#: Seconds to connect, and for an answer. Stripe's own limit for confirming a payment is below.
TIME_LIMITS = (5.0, 40.0)

#: Seconds by which Stripe's clock may be behind ours.
CLOCK_SKEW = 600


class StripeGateway:
    """Stripe. Its calls raise GatewayFailed where the outcome is open; a declined payment is an outcome."""

    name: GatewayName = "stripe"

    def __init__(self, settings: Settings) -> None:
        """Open no connection yet. Raises ValueError without the key."""
        if settings.stripe_secret_key is None:
            raise ValueError("STRIPE_SECRET_KEY is unset")
        self._webhook_secret = settings.stripe_webhook_secret
        self._return_url = settings.public_address
        base = settings.stripe_api_base
        self._client: Any = stripe.StripeClient(
            settings.stripe_secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": base.rstrip("/")} if base else None,
            http_client=stripe.RequestsClient(timeout=TIME_LIMITS),
            max_network_retries=0,  # the job tries again, after a look-up
        )

    def charge(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway."""
        at = datetime.now(UTC)
        if request.customer is None or request.method is None:
            return failed_outcome(at, "payment_method_missing", "The account has no payment method.")
        try:
            amount = to_stripe(request.amount, request.currency)
            with answers():
                parameters = charge_parameters(request, amount, self._return_url)
                intent = self._client.v1.payment_intents.create(parameters, charge_options(request))
        except NotChargeable as error:
            return failed_outcome(at, "amount_not_chargeable", str(error))
        except stripe.CardError as error:
            return self._after_decline(request, error, at)
        except stripe.InvalidRequestError as error:
            return PaymentOutcome("failed", None, at, error=error_of(error_object(error)))
        return self._outcome(intent, at)

    def _after_decline(self, request: ChargeRequest, error: Any, at: datetime) -> PaymentOutcome:
        """Return the outcome of a payment that the bank declined, or that the customer has to confirm."""
        intent = error_object(error).get("payment_intent") or {}
        if not intent:
            return PaymentOutcome("failed", None, at, error=error_of(error_object(error)))
        return self._continued(request, self._intent(intent["id"]), at)

    def look_up(self, request: ChargeRequest) -> PaymentOutcome | None:
        """See Gateway."""
        at = datetime.now(UTC)
        intent = self._find_intent(request)
        return self._continued(request, intent, at) if intent else None

    def _find_intent(self, request: ChargeRequest) -> Mapping[str, Any] | None:
        if request.customer is None:
            return None
        since = int(request.created_at.timestamp()) - CLOCK_SKEW
        query = {
            "customer": request.customer, "created": {"gte": since}, "limit": 100,
            "expand": [f"data.{name}" for name in EXPANDED],
        }  # fmt: skip
        with answers():
            for intent in self._client.v1.payment_intents.list(query).auto_paging_iter():
                if (plain := to_plain(intent))["metadata"].get("payment") == request.payment_id:
                    return plain
        return None

    def _continued(self, request: ChargeRequest, intent: Mapping[str, Any], at: datetime) -> PaymentOutcome:
        """Return the outcome of an intent, after the step that it waits for.

        If the bank wants the customer to confirm it, ask for the page for that. One that was created without being
        confirmed, as where Stripe failed in between, is confirmed.
        """
        if needs_customer(intent):
            return self._confirm(request, intent, at, "confirm", {"return_url": self._return_url})
        if intent["status"] == "requires_confirmation":
            outcome = self._confirm(request, intent, at, "resume", {"off_session": True})
            latest = self._intent(intent["id"]) if outcome.state == "failed" else {}
            return self._continued(request, latest, at) if latest and needs_customer(latest) else outcome
        return self._outcome(intent, at)

    def _confirm(
        self, request: ChargeRequest, intent: Mapping[str, Any], at: datetime, step: str, options: Mapping[str, Any]
    ) -> PaymentOutcome:
        parameters = {"payment_method": request.method, "expand": EXPANDED, **options}
        key = {"idempotency_key": f"{request.payment_id}-{step}"}
        try:
            with answers():
                return self._outcome(self._client.v1.payment_intents.confirm(intent["id"], parameters, key), at)
        except (stripe.CardError, stripe.InvalidRequestError):
            return self._outcome(self._intent(intent["id"]), at)

    def cancel(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway."""
        at, intent = datetime.now(UTC), self._find_intent(request)
        if intent is None:
            raise GatewayFailed("Stripe has no such payment.")
        try:
            with answers():
                return self._outcome(self._client.v1.payment_intents.cancel(intent["id"]), at)
        except stripe.InvalidRequestError:  # it has been confirmed meanwhile
            return self._outcome(self._intent(intent["id"]), at)

    def refund(self, request: RefundRequest) -> RefundOutcome:
        """See Gateway."""
        try:
            parameters = {
                "payment_intent": request.gateway_payment_id,
                "amount": to_stripe(request.amount, request.currency),
                "metadata": {"refund": request.refund_id},
            }
            with answers():
                made = self._client.v1.refunds.create(parameters, {"idempotency_key": request.refund_id})
        except NotChargeable as error:
            return RefundOutcome("failed", None, {"code": "amount_not_chargeable", "message": str(error)})
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            return RefundOutcome("failed", None, error_of(error_object(error)))
        return refund_outcome(to_plain(made))

    def look_up_refund(self, request: RefundRequest) -> RefundOutcome | None:
        """See Gateway."""
        query = {"payment_intent": request.gateway_payment_id, "limit": 100}
        with answers():
            for each in self._client.v1.refunds.list(query).auto_paging_iter():
                refund = to_plain(each)
                if request.refund_id == refund["metadata"].get("refund") or refund["id"] == request.gateway_refund_id:
                    return refund_outcome(refund)
        return None

    def create_customer(self, account_id: str, name: str, *, instead_of: str = "") -> str:
        """See Gateway."""
        parameters = {"metadata": {"account": account_id}, **({"name": name} if name else {})}
        # Stripe rejects a key with other parameters, and the customer may have changed the name since.
        key = f"customer-{account_id}-{hashlib.sha256(f'{name} {instead_of}'.encode()).hexdigest()[:16]}"
        with accepts():
            created = self._client.v1.customers.create(parameters, {"idempotency_key": key})
        return str(created.id)

    def delete_customer(self, customer: str) -> None:
        """See Gateway."""
        try:
            with answers():
                self._client.v1.customers.delete(customer)
        except stripe.InvalidRequestError as error:
            if error.code != "resource_missing":
                raise GatewayFailed("Stripe refuses to delete the customer.") from error

    def set_up_method(
        self, account_id: str, customer: str, *, return_url: str, method: str | None = None
    ) -> MethodSetUp:
        """See Gateway. The customer enters a card on Stripe's page. Raises InvalidRequest for a method."""
        if method is not None:
            raise InvalidRequest("'method' names a method of the simulated gateway only.", param="method")
        parameters = {
            "mode": "setup", "customer": customer, "allowed_payment_method_types": ["card"], "success_url": return_url,
            "cancel_url": return_url, "metadata": {"account": account_id},
        }  # fmt: skip
        with accepts():
            return MethodSetUp(url=str(self._client.v1.checkout.sessions.create(parameters).url))

    def detach_method(self, gateway_method_id: str) -> None:
        """See Gateway. One that is gone already is no error."""
        try:
            with answers():
                self._client.v1.payment_methods.detach(gateway_method_id)
        except stripe.InvalidRequestError as error:
            log.info("Stripe does not detach %s: %s", gateway_method_id, error.user_message)

    def portal(self, customer: str, *, return_url: str) -> str:
        """See Gateway."""
        parameters = {"customer": customer, "return_url": return_url}
        with accepts():
            return str(self._client.v1.billing_portal.sessions.create(parameters).url)

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Notice:
        """See Gateway."""
        try:
            text, header = body.decode(), headers.get("stripe-signature")
            stripe.WebhookSignature.verify_header(text, header, self._webhook_secret, TOLERANCE)
            event = orjson.loads(text)
            return Notice(str(event["id"]), str(event["type"]))
        except stripe.SignatureVerificationError:
            raise InvalidRequest("The signature of the webhook is not valid.", code="invalid_signature") from None
        except (ValueError, KeyError, TypeError):
            raise InvalidRequest("The body is not an event of Stripe.", code="invalid_json") from None

    def fetch(self, payload: str) -> News:
        """See Gateway."""
        event = orjson.loads(payload)
        subject = (event.get("data") or {}).get("object") or {}  # an event of the API's version 2 has none
        fetch = self._fetchers().get(str(subject.get("object")))
        try:
            return fetch(subject, event["type"]) if fetch else None
        except stripe.InvalidRequestError as error:
            if error.http_status == 404:  # it was deleted, or is another account's
                return None
            raise

    def _fetchers(self) -> Mapping[str, Callable[[Mapping[str, Any], str], News]]:
        """Return by type of object what asks for its present state."""
        return {
            "payment_intent": lambda subject, _: self._payment_news(subject["id"]),
            "charge": lambda subject, _: self._payment_news(subject.get("payment_intent")),
            "dispute": lambda subject, _: self._payment_news(subject.get("payment_intent")),
            "refund": self._fetch_refund,
            "checkout.session": self._fetch_session,
            "payment_method": self._fetch_method,
        }

    def _payment_news(self, intent_id: str | None) -> News:
        if intent_id is None:
            return None
        at, intent = datetime.now(UTC), self._intent(intent_id)
        # The payment's job, whose call may have caused the event, asks the bank for the page of the confirmation.
        waits = needs_customer(intent)
        outcome = PaymentOutcome("pending", intent["id"], at) if waits else self._outcome(intent, at)
        return PaymentNews(intent["metadata"].get("payment"), outcome)

    def _fetch_refund(self, subject: Mapping[str, Any], event_type: str) -> News:
        with answers():
            return refund_news(to_plain(self._client.v1.refunds.retrieve(subject["id"])))

    def _fetch_session(self, subject: Mapping[str, Any], event_type: str) -> News:
        with answers():
            session = to_plain(
                self._client.v1.checkout.sessions.retrieve(subject["id"], {"expand": ["setup_intent.payment_method"]})
            )
        account_id = (session.get("metadata") or {}).get("account")
        method = (session.get("setup_intent") or {}).get("payment_method")
        return stored_method(account_id, method) if account_id and method else None

    def _fetch_method(self, subject: Mapping[str, Any], event_type: str) -> News:
        with answers():
            method = to_plain(self._client.v1.payment_methods.retrieve(subject["id"]))
            if method.get("customer") is None:
                return MethodDetached(method["id"])
            customer = to_plain(self._client.v1.customers.retrieve(method["customer"]))
        account_id = (customer.get("metadata") or {}).get("account")
        return stored_method(account_id, method) if account_id else None

    def _intent(self, intent_id: str) -> Mapping[str, Any]:
        with answers():
            return to_plain(self._client.v1.payment_intents.retrieve(intent_id, {"expand": EXPANDED}))

    def _outcome(self, intent: Any, at: datetime) -> PaymentOutcome:
        plain = to_plain(intent)
        return payment_outcome(plain, at, self._disputes(plain))

    def _disputes(self, intent: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        charge = intent.get("latest_charge")
        if not isinstance(charge, Mapping) or not charge.get("disputed"):
            return []
        with answers():
            found = self._client.v1.disputes.list({"payment_intent": intent["id"], "limit": 100})
            return [to_plain(each) for each in found.auto_paging_iter()]

    def list_payments(self, start: datetime, end: datetime) -> Iterator[BookedPayment]:
        """See Gateway."""
        query = {
            "created": {"gte": int(start.timestamp()), "lt": int(end.timestamp())}, "limit": 100,
            "expand": ["data.latest_charge"],
        }  # fmt: skip
        with answers():
            for intent in self._client.v1.payment_intents.list(query).auto_paging_iter():
                if (plain := to_plain(intent))["status"] == "succeeded":
                    yield booked_payment(plain, self._disputes(plain))

    def read_payment(self, gateway_payment_id: str) -> BookedPayment | None:
        """See Gateway."""
        try:
            intent = self._intent(gateway_payment_id)
        except stripe.InvalidRequestError:
            return None
        return booked_payment(intent, self._disputes(intent)) if intent["status"] == "succeeded" else None
