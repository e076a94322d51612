"""The gateway `stripe`, by the official library.

A payment is an intent that is confirmed at once without the customer (`off_session`). If the bank wants the customer to
confirm it, it is confirmed again with a page to go to. Intents and refunds have our payment's or refund's id in their
metadata, by which they are found again: lists are consistent at once, Stripe's search is not.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import stripe

from models.billing.payments import GatewayName, PaymentOutcome
from models.billing.refunds import RefundOutcome
from models.platform.errors import InvalidRequest
from models.platform.settings import Settings
from pipelines.billing.gateways.gateway import (
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
from pipelines.billing.gateways.stripe_objects import (
    error_of,
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

#: Objects that are answered with an intent: its charge, and what Stripe keeps of it.
EXPANDED = ["latest_charge.balance_transaction"]

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
            return _failed(at, "payment_method_missing", "The account has no payment method.")
        try:
            amount = to_stripe(request.amount, request.currency)
            with _answers():
                intent = self._client.v1.payment_intents.create(_charge_parameters(request, amount), _key(request))
        except NotChargeable as error:
            return _failed(at, "amount_not_chargeable", str(error))
        except stripe.CardError as error:
            return self._after_decline(request, error, at)
        except stripe.InvalidRequestError as error:
            return PaymentOutcome("failed", None, at, error=error_of(_error_object(error)))
        return self._outcome(intent, at)

    def _after_decline(self, request: ChargeRequest, error: Any, at: datetime) -> PaymentOutcome:
        """Return the outcome of a payment that the bank declined, or that the customer has to confirm."""
        intent = _error_object(error).get("payment_intent") or {}
        if not intent:
            return PaymentOutcome("failed", None, at, error=error_of(_error_object(error)))
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
        with _answers():
            for intent in self._client.v1.payment_intents.list(query).auto_paging_iter():
                if (plain := _plain(intent))["metadata"].get("payment") == request.payment_id:
                    return plain
        return None

    def _continued(self, request: ChargeRequest, intent: Mapping[str, Any], at: datetime) -> PaymentOutcome:
        """Return the outcome of an intent. If the bank wants the customer to confirm it, ask for the page for that."""
        error = intent.get("last_payment_error") or {}
        if intent["status"] != "requires_payment_method" or error.get("code") != "authentication_required":
            return self._outcome(intent, at)
        parameters = {"payment_method": request.method, "return_url": self._return_url, "expand": EXPANDED}
        try:
            with _answers():
                confirmed = self._client.v1.payment_intents.confirm(
                    intent["id"], parameters, {"idempotency_key": f"{request.payment_id}-confirm"}
                )
        except (stripe.CardError, stripe.InvalidRequestError):
            return self._outcome(self._intent(intent["id"]), at)
        return self._outcome(confirmed, at)

    def cancel(self, request: ChargeRequest) -> PaymentOutcome:
        """See Gateway."""
        at, intent = datetime.now(UTC), self._find_intent(request)
        if intent is None:
            raise GatewayFailed("Stripe has no such payment.")
        try:
            with _answers():
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
            with _answers():
                made = self._client.v1.refunds.create(parameters, {"idempotency_key": request.refund_id})
        except NotChargeable as error:
            return RefundOutcome("failed", None, {"code": "amount_not_chargeable", "message": str(error)})
        except (stripe.InvalidRequestError, stripe.CardError) as error:
            return RefundOutcome("failed", None, error_of(_error_object(error)))
        return refund_outcome(_plain(made))

    def look_up_refund(self, request: RefundRequest) -> RefundOutcome | None:
        """See Gateway."""
        query = {"payment_intent": request.gateway_payment_id, "limit": 100}
        with _answers():
            for each in self._client.v1.refunds.list(query).auto_paging_iter():
                if (refund := _plain(each))["metadata"].get("refund") == request.refund_id:
                    return refund_outcome(refund)
        return None

    def create_customer(self, account_id: str, name: str) -> str:
        """See Gateway."""
        parameters = {"metadata": {"account": account_id}, **({"name": name} if name else {})}
        with _accepts():
            created = self._client.v1.customers.create(parameters, {"idempotency_key": f"customer-{account_id}"})
        return str(created.id)

    def set_up_method(
        self, account_id: str, customer: str, *, return_url: str, method: str | None = None
    ) -> MethodSetUp:
        """See Gateway. The customer enters a card on Stripe's page. Raises InvalidRequest for a method."""
        if method is not None:
            raise InvalidRequest("'method' names a method of the simulated gateway only.", param="method")
        parameters = {
            "mode": "setup", "customer": customer, "payment_method_types": ["card"], "success_url": return_url,
            "cancel_url": return_url, "metadata": {"account": account_id},
        }  # fmt: skip
        with _accepts():
            return MethodSetUp(url=str(self._client.v1.checkout.sessions.create(parameters).url))

    def detach_method(self, gateway_method_id: str) -> None:
        """See Gateway. One that is gone already is no error."""
        try:
            with _answers():
                self._client.v1.payment_methods.detach(gateway_method_id)
        except stripe.InvalidRequestError as error:
            log.info("Stripe does not detach %s: %s", gateway_method_id, error.user_message)

    def portal(self, customer: str, *, return_url: str) -> str:
        """See Gateway."""
        parameters = {"customer": customer, "return_url": return_url}
        with _accepts():
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
        subject = event["data"]["object"]
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
        return PaymentNews(intent["metadata"].get("payment"), self._outcome(intent, at))

    def _fetch_refund(self, subject: Mapping[str, Any], event_type: str) -> News:
        with _answers():
            return refund_news(_plain(self._client.v1.refunds.retrieve(subject["id"])))

    def _fetch_session(self, subject: Mapping[str, Any], event_type: str) -> News:
        with _answers():
            session = _plain(
                self._client.v1.checkout.sessions.retrieve(subject["id"], {"expand": ["setup_intent.payment_method"]})
            )
        account_id = (session.get("metadata") or {}).get("account")
        method = (session.get("setup_intent") or {}).get("payment_method")
        return stored_method(account_id, method) if account_id and method else None

    def _fetch_method(self, subject: Mapping[str, Any], event_type: str) -> News:
        with _answers():
            method = _plain(self._client.v1.payment_methods.retrieve(subject["id"]))
            if method.get("customer") is None:
                return MethodDetached(method["id"])
            customer = _plain(self._client.v1.customers.retrieve(method["customer"]))
        account_id = (customer.get("metadata") or {}).get("account")
        return stored_method(account_id, method) if account_id else None

    def _intent(self, intent_id: str) -> Mapping[str, Any]:
        with _answers():
            return _plain(self._client.v1.payment_intents.retrieve(intent_id, {"expand": EXPANDED}))

    def _outcome(self, intent: Any, at: datetime) -> PaymentOutcome:
        plain = _plain(intent)
        charge = plain.get("latest_charge")
        disputes = []
        if isinstance(charge, Mapping) and charge.get("disputed"):
            with _answers():
                found = self._client.v1.disputes.list({"payment_intent": plain["id"], "limit": 100})
                disputes = [_plain(each) for each in found.auto_paging_iter()]
        return payment_outcome(plain, at, disputes)


@contextmanager
def _accepts() -> Iterator[None]:
    """Raise GatewayFailed also for a call that Stripe refuses: it is one that the account at Stripe does not allow."""
    try:
        with _answers():
            yield
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        log.error("Stripe refuses a call: %s", error.user_message)
        raise GatewayFailed("Stripe refuses the call.") from error


@contextmanager
def _answers() -> Iterator[None]:
    """Raise GatewayFailed unless Stripe has answered what the call has come to: with a result, or by refusing it."""
    try:
        yield
    except (stripe.CardError, stripe.InvalidRequestError):
        raise
    except stripe.StripeError as error:
        raise GatewayFailed(f"Stripe: {type(error).__name__} {error.http_status or ''}".strip()) from error


def _charge_parameters(request: ChargeRequest, amount: int) -> dict[str, Any]:
    return {
        "amount": amount,
        "currency": request.currency.lower(),
        "customer": request.customer,
        "payment_method": request.method,
        "confirm": True,
        "off_session": True,
        "capture_method": "automatic",  # the default captures later, and does not tell the fee
        "metadata": {"payment": request.payment_id, "account": request.account_id},
        "expand": EXPANDED,
    }


def _key(request: ChargeRequest) -> dict[str, str]:
    return {"idempotency_key": request.payment_id}


def _plain(item: Any) -> Mapping[str, Any]:
    """Return an object of the library as dictionaries."""
    plain: Mapping[str, Any] = item if isinstance(item, dict) and type(item) is dict else item.to_dict()
    return plain


def _error_object(error: Any) -> Mapping[str, Any]:
    """Return the error of Stripe's answer."""
    body = error.json_body
    return body.get("error") or {} if isinstance(body, Mapping) else {}


def _failed(at: datetime, code: str, message: str) -> PaymentOutcome:
    return PaymentOutcome("failed", None, at, error={"code": code, "message": message})
