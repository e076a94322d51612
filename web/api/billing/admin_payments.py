"""`/admin/billing/payments`: refund a payment, and mark one as paid that came by bank transfer."""

from pydantic import Field
from starlette.responses import Response

from pipelines.billing import operator_payments
from pipelines.requests.validation import RequestBody
from web.api.billing.amounts import Amount
from web.api.billing.payments import payment_object, refund_object
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response


class RefundPayment(RequestBody):
    """The body of `POST /admin/billing/payments/{id}/refund`. Without an amount all that is left is refunded."""

    amount: Amount | None = None
    reason: str = Field("", max_length=500)


class MarkPaid(RequestBody):
    """The body of `POST /admin/billing/payments/{id}/mark_paid`. `reference` is such as that of a bank statement."""

    reference: str = Field("", max_length=500)


def refund(request: Request) -> Response:
    """`POST /admin/billing/payments/{id}/refund`: give back a payment or a part of it, with a credit note."""
    body = bodies.parse(request.body, RefundPayment)
    platform = request.platform
    made = operator_payments.refund(
        platform.database,
        request.caller,
        request.path_params["payment_id"],
        request.origin,
        amount=body.amount,
        reason=body.reason,
    )
    platform.queue.nudge(made.account_id)
    return json_response(refund_object(made), 201)


def mark_paid(request: Request) -> Response:
    """`POST /admin/billing/payments/{id}/mark_paid`: settle a payment that was made by bank transfer."""
    body = bodies.parse(request.body, MarkPaid)
    platform = request.platform
    payment = operator_payments.mark_paid(
        platform.database,
        request.caller,
        request.path_params["payment_id"],
        request.origin,
        reference=body.reference,
    )
    platform.queue.nudge(payment.account_id)
    return json_response(payment_object(payment))
