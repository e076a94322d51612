"""`/admin/billing`: the seller, taxes, credits, invoices and credit notes of any account, for operators only."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing import invoices, numbering
from models.billing.credits import GIVEN_PRIORITY
from models.billing.currencies import check_currency
from models.billing.numbering import Seller
from models.platform.errors import InvalidRequest
from pipelines.billing import operator_actions
from pipelines.billing.credit_note import NewCreditNote
from pipelines.billing.operator_actions import Operator
from pipelines.requests.validation import RequestBody
from web.api.accounts.names import Name
from web.api.billing.amounts import Amount
from web.api.billing.details import BillingEmail, Lines, OneLine, details_object
from web.api.billing.invoice_schemas import admin_invoice, credit_note_object, grant_object
from web.api.billing.invoices import ListInvoices
from web.api.request import Request
from web.http import bodies
from web.http.paging import page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import UnixTime, from_unix

#: What numbers of documents begin with.
Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9/_-]{0,19}$")]


def _check_rate(rate: Decimal) -> Decimal:
    if not 0 <= rate <= 100:
        raise ValueError("should be between 0 and 100")
    return rate


#: A day after a failed payment on which it is tried again.
RetryDay = Annotated[int, Field(ge=1, le=60)]


def _check_days(days: list[int]) -> list[int]:
    if days != sorted(set(days)):
        raise ValueError("should have each day once, in their order")
    return days


class PutSeller(RequestBody):
    """The body of `PUT /admin/billing/seller`. Omitted fields stay unchanged; a change is for later invoices."""

    name: Name | None = None
    address: Lines | None = None
    email: BillingEmail | None = None
    tax_id: OneLine | None = None
    note: Lines | None = None
    default_currency: str | None = Field(None, max_length=3)
    invoice_prefix: Prefix | None = None
    credit_note_prefix: Prefix | None = None
    payment_days: int | None = Field(None, ge=0, le=365)
    retry_days: Annotated[list[RetryDay], Field(max_length=10), AfterValidator(_check_days)] | None = None


class PutTax(RequestBody):
    """The body of `PUT /admin/billing/accounts/{id}/tax`. `rate` is in percent; `note` is printed on invoices."""

    name: OneLine = ""
    rate: Annotated[Amount, AfterValidator(_check_rate)]
    note: Lines = ""


class GiveCredits(RequestBody):
    """The body of `POST /admin/billing/accounts/{id}/credits`. Credits of a lower priority are drawn first."""

    amount: Amount
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    priority: int = Field(GIVEN_PRIORITY, ge=0, le=1000)
    expires_at: UnixTime | None = None


class CreateCreditNote(RequestBody):
    """The body of `POST /admin/billing/invoices/{id}/credit_notes`.

    amount  with tax; omitted without `job_id`: all that is left of the invoice
    job_id  the job whose cost is credited, instead of an amount
    """

    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    amount: Amount | None = None
    job_id: str | None = Field(None, max_length=64)


class ListAccountInvoices(ListInvoices):
    """The query of `GET /admin/billing/invoices`."""

    account_id: str = Field(max_length=64)


class SellerObject(TypedDict):
    """Who issues the invoices of the installation."""

    object: Literal["billing.seller"]
    name: str
    address: str
    email: str
    tax_id: str
    note: str
    default_currency: str
    invoice_prefix: str
    credit_note_prefix: str
    payment_days: int
    retry_days: list[int]


def read_seller(request: Request) -> Response:
    """`GET /admin/billing/seller`: read who issues the invoices."""
    with request.platform.database.connection() as connection:
        return json_response(_seller_object(numbering.read_seller(connection)))


def update_seller(request: Request) -> Response:
    """`PUT /admin/billing/seller`: change who issues later invoices."""
    changes = bodies.parse(request.body, PutSeller).model_dump(exclude_none=True)
    if "default_currency" in changes:
        changes["default_currency"] = check_currency(changes["default_currency"], "default_currency")
    return json_response(_seller_object(operator_actions.change_seller(_operator(request), changes)))


def set_tax(request: Request) -> Response:
    """`PUT /admin/billing/accounts/{id}/tax`: set the tax of an account's later invoices."""
    body = bodies.parse(request.body, PutTax)
    account_id = request.path_params["account_id"]
    details = operator_actions.set_tax(_operator(request), account_id, name=body.name, rate=body.rate, note=body.note)
    return json_response(details_object(details))


def give_credits(request: Request) -> Response:
    """`POST /admin/billing/accounts/{id}/credits`: give an account credits."""
    body = bodies.parse(request.body, GiveCredits)
    grant = operator_actions.give_credits(
        _operator(request), request.path_params["account_id"], request.new_id("grant"), body.amount,
        reason=body.reason, priority=body.priority, expires_at=from_unix(body.expires_at),
    )  # fmt: skip
    return json_response(grant_object(grant), 201)


def list_invoices(request: Request) -> Response:
    """`GET /admin/billing/invoices`: list the invoices of an account, newest first."""
    query = parse_query(request.query, ListAccountInvoices)
    with request.platform.database.connection() as connection:
        records = invoices.list_invoices(
            connection, query.account_id, state=query.state, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, admin_invoice)


def void(request: Request) -> Response:
    """`POST /admin/billing/invoices/{id}/void`: take an invoice back that was not paid."""
    return json_response(admin_invoice(operator_actions.void(_operator(request), request.path_params["invoice_id"])))


def write_off(request: Request) -> Response:
    """`POST /admin/billing/invoices/{id}/write_off`: expect the payment of an invoice no longer."""
    invoice = operator_actions.write_off(_operator(request), request.path_params["invoice_id"])
    return json_response(admin_invoice(invoice))


def create_credit_note(request: Request) -> Response:
    """`POST /admin/billing/invoices/{id}/credit_notes`: credit an invoice, and refund what was paid."""
    body = bodies.parse(request.body, CreateCreditNote)
    if body.amount is not None and body.job_id is not None:
        raise InvalidRequest("Either 'amount' or 'job_id' can be given, not both.", param="job_id")
    new = NewCreditNote(body.reason, body.amount, body.job_id, request.new_id("cn"))
    note = operator_actions.issue_credit_note(_operator(request), request.path_params["invoice_id"], new)
    request.platform.queue.nudge()
    return json_response(credit_note_object(note), 201)


def _operator(request: Request) -> Operator:
    return Operator(request.platform.database, request.caller, request.origin)


def _seller_object(seller: Seller) -> SellerObject:
    return {
        "object": "billing.seller",
        "name": seller.name,
        "address": seller.address,
        "email": seller.email,
        "tax_id": seller.tax_id,
        "note": seller.note,
        "default_currency": seller.default_currency,
        "invoice_prefix": seller.invoice_prefix,
        "credit_note_prefix": seller.credit_note_prefix,
        "payment_days": seller.payment_days,
        "retry_days": list(seller.retry_days),
    }
