"""`POST /billing/invoices/{id}/pay`: pay an open invoice, such as one whose payment failed."""

from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing import invoices, payments
from models.billing.invoices import Invoice
from models.billing.payments import Payment
from pipelines.billing import subscribe
from pipelines.requests.validation import RequestBody
from web.api.billing.invoice_schemas import InvoiceObject, invoice_object
from web.api.billing.subscriptions import (
    MAX_WAIT,
    PaymentSummary,
    SubscriptionJob,
    payment_summary,
    wait_for_job,
)
from web.api.request import Request
from web.http import bodies
from web.http.preferences import applied_wait, preferred_wait
from web.http.responses import json_response
from web.http.threads import run_in_thread


class PayInvoice(RequestBody):
    """The body of `POST /billing/invoices/{id}/pay`. Without `payment_method_id` the default method is charged."""

    payment_method_id: str | None = Field(None, min_length=1, max_length=64)


class InvoicePayment(TypedDict):
    """An invoice and its payment. The job's events tell when it has ended."""

    object: Literal["billing.invoice_payment"]
    invoice: InvoiceObject
    payment: PaymentSummary
    job: SubscriptionJob | None
    events_url: str | None


async def pay(request: Request) -> Response:
    """`POST /billing/invoices/{id}/pay`: pay an open invoice, and wait as long as `Prefer: wait=N` says."""
    body = bodies.parse(request.body, PayInvoice)
    invoice, payment = await run_in_thread(_pay, request, body)
    wait = preferred_wait(request.headers, MAX_WAIT)
    if wait and payment.job_id:
        await wait_for_job(request, payment.job_id, wait)
        invoice, payment = await run_in_thread(_reread, request, invoice, payment)
    return json_response(_payment_object(invoice, payment), headers=applied_wait(wait))


def _pay(request: Request, body: PayInvoice) -> tuple[Invoice, Payment]:
    platform, caller = request.platform, request.caller
    with platform.database.transaction() as connection:
        invoice = invoices.read(connection, request.path_params["invoice_id"], caller.account_id)
        invoice, payment = subscribe.pay(
            connection,
            platform.settings.gateway,
            invoice.id,
            caller.account_id,
            payment_method_id=body.payment_method_id,
            owner_id=caller.user_id,
        )
    if payment.job_id:
        platform.queue.announce_job(payment.job_id, (), caller.account_id)
    return invoice, payment


def _reread(request: Request, invoice: Invoice, payment: Payment) -> tuple[Invoice, Payment]:
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        return invoices.read(connection, invoice.id, account_id), payments.read(connection, payment.id, account_id)


def _payment_object(invoice: Invoice, payment: Payment) -> InvoicePayment:
    job_id = payment.job_id
    return {
        "object": "billing.invoice_payment",
        "invoice": invoice_object(invoice),
        "payment": payment_summary(payment),
        "job": {"id": job_id, "state_url": f"/v1/jobs/{job_id}"} if job_id else None,
        "events_url": f"/v1/jobs/{job_id}/events" if job_id else None,
    }
