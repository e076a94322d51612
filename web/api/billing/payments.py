"""`/billing/payments`: list and read the account's payments."""

from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing import payments, refunds
from models.billing.currencies import format_amount
from models.billing.payments import GatewayName, Payment, PaymentState
from models.billing.refunds import Refund, RefundState
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import to_unix


class ListPayments(Listing):
    """The query of `GET /billing/payments`."""

    invoice_id: str | None = Field(None, max_length=100)
    state: PaymentState | None = None


class PaymentError(TypedDict):
    """Why a payment failed. `code` is for programs, such as `card_declined`."""

    code: str
    message: str


class RefundObject(TypedDict):
    """A part of a payment that is given back."""

    id: str
    object: Literal["refund"]
    payment_id: str
    credit_note_id: str | None
    job_id: str | None
    amount: str
    currency: str
    state: RefundState
    reason: str
    error: PaymentError | None
    created_at: int
    ended_at: int | None


class PaymentObject(TypedDict):
    """A payment. Its job and the job's events are at `/v1/jobs/{job_id}`; `action_url` is where it is confirmed.

    `disputed` is what the customer's bank has taken back until it decides, `lost` what it keeps.
    """

    id: str
    object: Literal["payment"]
    invoice_id: str | None
    job_id: str | None
    payment_method_id: str | None
    gateway: GatewayName
    amount: str
    currency: str
    refunded: str
    disputed: str
    lost: str
    state: PaymentState
    action_url: str | None
    error: PaymentError | None
    created_at: int
    ended_at: int | None


class PaymentWithRefunds(PaymentObject):
    """A payment and its refunds, the oldest first."""

    refunds: list[RefundObject]


def list_payments(request: Request) -> Response:
    """`GET /billing/payments`: list the account's payments, newest first."""
    query = parse_query(request.query, ListPayments)
    with request.platform.database.connection() as connection:
        records = payments.list_payments(
            connection,
            request.caller.account_id,
            invoice_id=query.invoice_id,
            state=query.state,
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, payment_object)


def retrieve(request: Request) -> Response:
    """`GET /billing/payments/{id}`: read a payment with its refunds."""
    account_id, payment_id = request.caller.account_id, request.path_params["payment_id"]
    with request.platform.database.connection() as connection:
        payment = payments.read(connection, payment_id, account_id)
        made = refunds.list_of_payment(connection, payment_id, account_id)
    with_refunds: PaymentWithRefunds = {**payment_object(payment), "refunds": [refund_object(each) for each in made]}
    return json_response(with_refunds)


def payment_object(payment: Payment) -> PaymentObject:
    """Convert a payment to its API object."""
    return {
        "id": payment.id,
        "object": "payment",
        "invoice_id": payment.invoice_id,
        "job_id": payment.job_id,
        "payment_method_id": payment.payment_method_id,
        "gateway": payment.gateway,
        "amount": format_amount(payment.amount, payment.currency),
        "currency": payment.currency,
        "refunded": format_amount(payment.refunded, payment.currency),
        "disputed": format_amount(payment.disputed_amount, payment.currency),
        "lost": format_amount(payment.lost_amount, payment.currency),
        "state": payment.state,
        "action_url": payment.action_url,
        "error": _error(payment.error),
        "created_at": int(payment.created_at.timestamp()),
        "ended_at": to_unix(payment.ended_at),
    }


def refund_object(refund: Refund) -> RefundObject:
    """Convert a refund to its API object."""
    return {
        "id": refund.id,
        "object": "refund",
        "payment_id": refund.payment_id,
        "credit_note_id": refund.credit_note_id,
        "job_id": refund.refund_job_id,
        "amount": format_amount(refund.amount, refund.currency),
        "currency": refund.currency,
        "state": refund.state,
        "reason": refund.reason,
        "error": _error(refund.error),
        "created_at": int(refund.created_at.timestamp()),
        "ended_at": to_unix(refund.ended_at),
    }


def _error(stored: object) -> PaymentError | None:
    if not isinstance(stored, dict):
        return None
    return {"code": str(stored.get("code", "")), "message": str(stored.get("message", ""))}
