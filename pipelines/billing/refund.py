"""Jobs `payment.refund`: give back a part of a payment once, in the same steps as `charge.py`."""

from collections.abc import Mapping
from typing import Any

from models.billing import payments, refunds
from models.billing.refunds import Refund, RefundOutcome
from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.effects import EFFECT_CHANGED
from models.platform.database import Connection
from models.platform.errors import EffectUnknown, PermanentFailure
from pipelines.billing.gateways.gateway import Gateway, RefundRequest
from pipelines.billing.gateways.registry import Gateways
from pipelines.effects import LookUpAnswer, perform


def run(gateways: Gateways, attempt: Attempt) -> Ending:
    """Make the refund of the job, unless it has an outcome."""
    job = attempt.job
    with attempt.database.connection() as connection:
        refund = refunds.read(connection, job.arguments["refund_id"], job.account_id)
        if refund is None:
            raise PermanentFailure("The refund does not exist any more.", code="not_found")
        payment = payments.read(connection, refund.payment_id, job.account_id)
    if refund.state != "pending":
        return plain_ending(attempt, "completed", result={"refund_id": refund.id, "state": refund.state})
    request = RefundRequest(
        refund.id, payment.id, payment.gateway_payment_id or payment.id, refund.amount, refund.currency
    )
    return _ending(attempt, refund, _refund(gateways.get(payment.gateway), attempt, request))


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

    def record(connection: Connection) -> None:
        refunds.settle(connection, refund, outcome)

    return Ending("completed", ending.events, result=result, record=record)
