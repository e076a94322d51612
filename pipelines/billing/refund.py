"""Jobs `payment.refund` and `refund.check`: give back a part of a payment once, in the same steps as `charge.py`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from models.billing import payments, refunds
from models.billing.payments import Payment
from models.billing.refunds import Refund, RefundOutcome
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.effects import EFFECT_CHANGED
from models.platform.errors import EffectUnknown, PermanentFailure, Released
from pipelines.billing.gateways.gateway import Gateway, RefundRequest
from pipelines.billing.gateways.registry import Gateways
from pipelines.effects import LookUpAnswer, perform

#: Seconds between two looks at a refund that its gateway has not decided: half of its age within these limits.
MIN_INTERVAL, MAX_INTERVAL = 600.0, 86_400.0


def run(gateways: Gateways, attempt: Attempt) -> Ending:
    """Make the refund of the job, unless it has an outcome."""
    refund, payment, request = _read(attempt)
    if refund.state != "pending":
        return plain_ending(attempt, "completed", result={"refund_id": refund.id, "state": refund.state})
    return _ending(attempt, refund, _refund(gateways.get(payment.gateway), attempt, request))


def check(gateways: Gateways, attempt: Attempt) -> Ending:
    """Ask what became of a refund that is pending at its gateway. Raises Released to ask again later."""
    refund, payment, request = _read(attempt)
    if refund.state != "pending":
        return plain_ending(attempt, "completed", result={"refund_id": refund.id, "state": refund.state})
    outcome = gateways.get(payment.gateway).look_up_refund(request)
    if outcome is None or outcome.state == "pending":
        age = (datetime.now(UTC) - refund.created_at).total_seconds()
        raise Released("the gateway has not decided the refund", delay=min(max(age / 2, MIN_INTERVAL), MAX_INTERVAL))
    return _ending(attempt, refund, outcome)


def _read(attempt: Attempt) -> tuple[Refund, Payment, RefundRequest]:
    job = attempt.job
    with attempt.database.connection() as connection:
        refund = refunds.read(connection, job.arguments["refund_id"], job.account_id)
        if refund is None:
            raise PermanentFailure("The refund does not exist any more.", code="not_found")
        payment = payments.read(connection, refund.payment_id, job.account_id)
    request = RefundRequest(
        refund.id, payment.id, payment.gateway_payment_id or payment.id, refund.amount, refund.currency,
        refund.gateway_refund_id,
    )  # fmt: skip
    return refund, payment, request


def _refund(gateway: Gateway, attempt: Attempt, request: RefundRequest) -> RefundOutcome:
    """Make the refund with its id as the idempotency key."""
    declared = {"refund": request.refund_id, "amount": str(request.amount), "currency": request.currency}

    def look_up(key: str) -> Mapping[str, Any] | LookUpAnswer:
        found = gateway.look_up_refund(request)
        return found.to_json() if found else LookUpAnswer.NOT_FOUND

    try:
        answer = perform(
            attempt, refunds.REFUND, declared, lambda key: gateway.refund(request).to_json(), look_up,
            key=request.refund_id,
        )  # fmt: skip
    except EffectUnknown:
        raise
    except PermanentFailure as failure:  # an operator has found that it was not made
        if failure.code == EFFECT_CHANGED:  # it may have been made, with the earlier request
            raise
        return RefundOutcome("failed", None, {"code": failure.code, "message": failure.message})
    if "state" not in answer:  # an operator has found that it was made
        return RefundOutcome("succeeded", answer.get("id"))
    return RefundOutcome(**answer)


def _ending(attempt: Attempt, refund: Refund, outcome: RefundOutcome) -> Ending:
    result = {"refund_id": refund.id, "state": outcome.state, "refund_error": outcome.error}
    ending = plain_ending(attempt, "completed", result=result)
    record = partial(refunds.settle, refund=refund, outcome=outcome)
    return Ending("completed", ending.events, result=result, record=record)
