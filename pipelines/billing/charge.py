"""Jobs `payment.charge` and `payment.check`: make a payment at its gateway once, and see what became of it.

    read the payment → declare the effect → call the gateway → record the answer → settle, with the end of the job

A worker may die between any two of these. The next attempt asks the gateway by the payment's id before it calls again.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from models.billing import payment_methods, payments, settlement
from models.billing.payments import Payment, PaymentOutcome
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.effects import EFFECT_CHANGED
from models.platform import span_names, tracing
from models.platform.errors import EffectUnknown, PermanentFailure, Released
from models.platform.metrics import CHARGE_DURATION, observe
from pipelines.billing.gateways.gateway import ChargeRequest, Gateway
from pipelines.billing.gateways.registry import Gateways
from pipelines.effects import LookUpAnswer, perform

#: How long a customer may take to confirm a payment.
CONFIRMATION_TIME = timedelta(hours=23)

#: Seconds between two looks at a payment that its gateway has not decided.
CHECK_INTERVAL = 3600.0


def run(gateways: Gateways, attempt: Attempt) -> Ending:
    """Make the payment of the job, unless it has an outcome. A payment that is declined completes the job, too."""
    payment, request = _read(attempt)
    if payment.state != "pending":
        return plain_ending(attempt, "completed", result=_result(payment.id, payment.state, payment.error))
    outcome = _charge(gateways.get(payment.gateway), attempt, request)
    return _ending(attempt, payment, outcome)


def check(gateways: Gateways, attempt: Attempt) -> Ending:
    """Ask what became of a payment that waits. Raises Released to ask again later."""
    payment, request = _read(attempt)
    if payment.state not in ("pending", "requires_action"):
        return plain_ending(attempt, "completed", result=_result(payment.id, payment.state, payment.error))
    gateway = gateways.get(payment.gateway)
    outcome = gateway.look_up(request)
    if outcome is not None and outcome.state == "requires_action" and _is_overdue(payment):
        outcome = gateway.cancel(request)
    if outcome is None or outcome.state in ("pending", "requires_action"):
        _store_action(attempt, payment, outcome)
        raise Released("the gateway has not decided the payment", delay=CHECK_INTERVAL)
    return _ending(attempt, payment, outcome)


def _store_action(attempt: Attempt, payment: Payment, outcome: PaymentOutcome | None) -> None:
    """Store the page of a payment that has come to wait for its customer."""
    if outcome is not None and outcome.state == "requires_action":
        with attempt.database.transaction() as connection:
            payments.lock(connection, payment.id, payment.account_id)
            payments.advance(connection, payment, outcome)


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """Keep the payment pending: it may have been made. An operator decides, and replays the job."""
    payment_id = attempt.job.arguments["payment_id"]
    record = partial(
        payments.store_error, payment_id=payment_id, account_id=attempt.job.account_id, error=dict(error or {})
    )
    ending = plain_ending(attempt, state, error)
    return Ending(state, ending.events, error=error, record=record)


def _read(attempt: Attempt) -> tuple[Payment, ChargeRequest]:
    job = attempt.job
    with attempt.database.connection() as connection:
        payment = payments.read(connection, job.arguments["payment_id"], job.account_id)
        customer = payment_methods.read_customer(connection, job.account_id, payment.gateway)
        method = payment.payment_method_id and payment_methods.read_charged(
            connection, payment.payment_method_id, job.account_id
        )
    request = ChargeRequest(
        payment.id, payment.account_id, payment.amount, payment.currency, customer,
        method.gateway_method_id if method else None, payment.created_at,
    )  # fmt: skip
    return payment, request


def _charge(gateway: Gateway, attempt: Attempt, request: ChargeRequest) -> PaymentOutcome:
    """Make the payment with its id as the idempotency key."""
    declared = {
        "payment": request.payment_id,
        "amount": str(request.amount),
        "currency": request.currency,
        "method": request.method,
    }

    def look_up(key: str) -> Mapping[str, Any] | LookUpAnswer:
        found = gateway.look_up(request)
        return found.to_json() if found else LookUpAnswer.NOT_FOUND

    try:
        answer = perform(
            attempt,
            settlement.CHARGE,
            declared,
            lambda key: _timed_charge(gateway, request).to_json(),
            look_up,
            key=request.payment_id,
        )
    except EffectUnknown:
        raise
    except PermanentFailure as failure:  # an operator has found that it was not made
        if failure.code == EFFECT_CHANGED:  # it may have been made, with the earlier request
            raise
        error = {"code": failure.code, "message": failure.message}
        return PaymentOutcome("failed", None, datetime.now(UTC), error=error)
    if "state" not in answer:  # an operator has found that it was made
        return PaymentOutcome("succeeded", answer.get("id"), datetime.now(UTC))
    return PaymentOutcome.from_json(answer)


def _timed_charge(gateway: Gateway, request: ChargeRequest) -> PaymentOutcome:
    """Call the gateway, and count how long it takes. Raises what it raises."""
    began, outcome = time.monotonic(), "error"
    try:
        with tracing.span(span_names.charge(gateway.name), "client") as span:
            charged = gateway.charge(request)
            span.set(span_names.PAYMENT_STATE, charged.state)
        outcome = charged.state
        return charged
    finally:
        observe(CHARGE_DURATION.labels(gateway.name, outcome), time.monotonic() - began)


def _ending(attempt: Attempt, payment: Payment, outcome: PaymentOutcome) -> Ending:
    """End the job, and settle the payment in the same transaction."""
    result = _result(payment.id, outcome.state, outcome.error)
    notice = {"job_id": attempt.job.id, **result}
    completed = {"job_id": attempt.job.id, "error": None, "result": result}
    events = attempt.journal.compose_endings(
        [(f"sangha:payment.{outcome.state}", notice), ("sangha:job.completed", completed)]
    )
    return Ending(
        "completed", events, result=result, record=partial(settlement.settle, payment=payment, outcome=outcome)
    )


def _result(payment_id: str, state: str, error: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"payment_id": payment_id, "state": state, "payment_error": dict(error) if error else None}


def _is_overdue(payment: Payment) -> bool:
    return datetime.now(UTC) - payment.created_at > CONFIRMATION_TIME
