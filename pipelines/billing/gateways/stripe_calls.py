"""Helpers of the calls to Stripe: which errors leave the outcome open, parameters, and plain objects."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import stripe

from models.billing.payments import PaymentOutcome
from pipelines.billing.gateways.gateway import ChargeRequest, CustomerMissing, GatewayFailed

log = logging.getLogger(__name__)

#: Objects that are answered with an intent: its charge, and what Stripe keeps of it.
EXPANDED = ["latest_charge.balance_transaction"]


@contextmanager
def accepts() -> Iterator[None]:
    """Raise GatewayFailed also for a call that Stripe refuses: it is one that the account at Stripe does not allow."""
    try:
        with answers():
            yield
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        if error.code == "resource_missing" and error.param == "customer":
            raise CustomerMissing("Stripe does not have the customer.") from error
        log.error("Stripe refuses a call: %s", error.user_message)
        raise GatewayFailed("Stripe refuses the call.") from error


@contextmanager
def answers() -> Iterator[None]:
    """Raise GatewayFailed unless Stripe has answered what the call has come to: with a result, or by refusing it."""
    try:
        yield
    except (stripe.CardError, stripe.InvalidRequestError):
        raise
    except stripe.StripeError as error:
        raise GatewayFailed(f"Stripe: {type(error).__name__} {error.http_status or ''}".strip()) from error


def charge_parameters(request: ChargeRequest, amount: int, return_url: str) -> dict[str, Any]:
    """Return the parameters of an intent that is confirmed at once without the customer."""
    return {
        "amount": amount,
        "currency": request.currency.lower(),
        "customer": request.customer,
        "payment_method": request.method,
        "confirm": True,
        "off_session": True,
        "return_url": return_url,  # Stripe may require one where the account allows methods that redirect
        "capture_method": "automatic",  # the default captures later, and does not tell the fee
        "metadata": {"payment": request.payment_id, "account": request.account_id},
        "expand": EXPANDED,
    }


def charge_options(request: ChargeRequest) -> dict[str, str]:
    """Return the options of the call that creates an intent."""
    return {"idempotency_key": request.payment_id}


def to_plain(item: Any) -> Mapping[str, Any]:
    """Return an object of the library as dictionaries."""
    converted: Mapping[str, Any] = item if isinstance(item, dict) and type(item) is dict else item.to_dict()
    return converted


def error_object(error: Any) -> Mapping[str, Any]:
    """Return the error of Stripe's answer."""
    body = error.json_body
    return body.get("error") or {} if isinstance(body, Mapping) else {}


def failed_outcome(at: datetime, code: str, message: str) -> PaymentOutcome:
    """Return the outcome of a payment for which there is no intent."""
    return PaymentOutcome("failed", None, at, error={"code": code, "message": message})
