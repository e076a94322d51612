"""Convert Stripe's objects to ours."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from models.billing.currencies import ZERO
from models.billing.payments import PaymentOutcome
from models.billing.refunds import RefundOutcome
from pipelines.billing.gateways.gateway import BookedPayment, RefundNews, StoredMethod
from pipelines.billing.gateways.stripe_amounts import from_stripe

#: States of a dispute in which the customer's bank does not have the money: an inquiry (`warning_…`) takes none.
OVER_DISPUTES = frozenset({"won", "prevented", "warning_needs_response", "warning_under_review", "warning_closed"})

#: States of an intent that brings no money any more. Any other one, also one that is not known here, may bring some.
OVER = frozenset({"canceled", "requires_payment_method"})


def payment_outcome(intent: Mapping[str, Any], at: datetime, disputes: Iterable[Mapping[str, Any]]) -> PaymentOutcome:
    """Return the outcome of a payment by its intent, with the latest charge and its balance transaction."""
    status, intent_id = intent["status"], intent["id"]
    if status == "succeeded":
        disputed, lost = _disputed(disputes)
        return PaymentOutcome("succeeded", intent_id, at, fee=_fee(intent), disputed=disputed, lost=lost)
    if status == "requires_action":
        action = intent.get("next_action") or {}
        return PaymentOutcome(
            "requires_action", intent_id, at, action_url=(action.get("redirect_to_url") or {}).get("url")
        )
    if status in OVER:
        return PaymentOutcome("failed", intent_id, at, error=_error(intent))
    return PaymentOutcome("pending", intent_id, at)


def needs_customer(intent: Mapping[str, Any]) -> bool:
    """Return whether the bank has declined a charge without the customer, who has to confirm it."""
    error = intent.get("last_payment_error") or {}
    return intent["status"] == "requires_payment_method" and error.get("code") == "authentication_required"


def error_of(error: Mapping[str, Any]) -> dict[str, str]:
    """Return our error of one of Stripe's: the bank's reason, where there is one."""
    code = error.get("decline_code") if error.get("decline_code") not in (None, "generic_decline") else None
    return {
        "code": str(code or error.get("code") or "payment_failed"),
        "message": str(error.get("message") or "The payment failed."),
    }


def booked_payment(intent: Mapping[str, Any], disputes: Iterable[Mapping[str, Any]]) -> BookedPayment:
    """Return a payment that has arrived, by its intent with the latest charge."""
    charge, currency, metadata = intent["latest_charge"], intent["currency"], intent.get("metadata") or {}
    return BookedPayment(
        metadata.get("payment"), metadata.get("account"), intent["id"],
        from_stripe(intent["amount_received"], currency), currency.upper(),
        from_stripe(charge["amount_refunded"], currency), sum(_disputed(disputes), ZERO),
        datetime.fromtimestamp(charge["created"], UTC),
    )  # fmt: skip


def refund_outcome(refund: Mapping[str, Any]) -> RefundOutcome:
    """Return the outcome of a refund."""
    status = refund["status"]
    if status in ("failed", "canceled"):
        reason = refund.get("failure_reason") or status
        return RefundOutcome("failed", refund["id"], {"code": "refund_failed", "message": f"The refund: {reason}."})
    return RefundOutcome("succeeded" if status == "succeeded" else "pending", refund["id"])


def refund_news(refund: Mapping[str, Any]) -> RefundNews | None:
    """Return the present state of a refund; None for one of a charge without an intent, which we have not made."""
    if not refund.get("payment_intent"):
        return None
    return RefundNews(
        (refund.get("metadata") or {}).get("refund"),
        refund["payment_intent"],
        from_stripe(refund["amount"], refund["currency"]),
        refund_outcome(refund),
    )


def stored_method(account_id: str, method: Mapping[str, Any]) -> StoredMethod:
    """Return a payment method of an account, labelled such as 'Visa 4242'."""
    kind = method["type"]
    details = method.get(kind) or {}
    name = str(details.get("brand") or kind).replace("_", " ").capitalize()
    return StoredMethod(account_id, method["id"], f"{name} {details.get('last4') or ''}".strip())


def _fee(intent: Mapping[str, Any]) -> Decimal:
    """Return what Stripe keeps; zero if it settles in another currency, in which it counts its fees."""
    charge = intent.get("latest_charge") or {}
    transaction = charge.get("balance_transaction") if isinstance(charge, Mapping) else None
    if not isinstance(transaction, Mapping) or transaction["currency"] != intent["currency"]:
        return ZERO
    return from_stripe(transaction["fee"], transaction["currency"])


def _disputed(disputes: Iterable[Mapping[str, Any]]) -> tuple[Decimal, Decimal]:
    """Return what is disputed, and what is lost. A state that is not known here counts as open."""
    open_amount, lost = ZERO, ZERO
    for each in disputes:
        amount = from_stripe(each["amount"], each["currency"])
        if each["status"] == "lost":
            lost += amount
        elif each["status"] not in OVER_DISPUTES:
            open_amount += amount
    return open_amount, lost


def _error(intent: Mapping[str, Any]) -> dict[str, str]:
    if intent["status"] == "canceled":
        return {"code": "action_failed", "message": "The payment was not confirmed in time."}
    return error_of(intent.get("last_payment_error") or {})
