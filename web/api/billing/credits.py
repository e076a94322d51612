"""`/billing/credits`: prepaid credits, top-ups, and automatic top-ups."""

from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import audit
from models.billing import billing_details, credits, invoices, numbering, payments
from models.billing.billing_details import BillingDetails
from models.billing.currencies import ZERO, check_amount, format_amount
from models.billing.invoices import Invoice
from models.billing.payments import Payment
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotFound
from pipelines.billing import top_up
from pipelines.requests.validation import RequestBody
from web.api.billing.amounts import Amount
from web.api.billing.invoice_schemas import GrantObject, InvoiceObject, grant_object, invoice_object
from web.api.billing.payments import PaymentObject, payment_object
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing
from web.http.queries import parse_query
from web.http.responses import Page, json_response, page_object


class TopUp(RequestBody):
    """The body of `POST /billing/credits/top_up`. Without `payment_method_id` the default method is charged."""

    amount: Amount
    payment_method_id: str | None = Field(None, max_length=64)


class AutoTopUp(RequestBody):
    """The body of `PUT /billing/credits/auto_top_up`.

    When less than `below` is available, `amount` is topped up, in a calendar month (UTC) at most `monthly_limit`.
    """

    below: Amount
    amount: Amount
    monthly_limit: Amount


class AutoTopUpObject(TypedDict):
    """The rule of automatic top-ups."""

    below: str
    amount: str
    monthly_limit: str


class CreditsObject(TypedDict):
    """The account's credits. `available` is what is left of the `balance` after the usage that is not invoiced yet.

    Usage within the plan's included amount is not deducted.
    """

    object: Literal["billing.credits"]
    currency: str
    balance: str
    unbilled_usage: str
    available: str
    auto_top_up: AutoTopUpObject | None
    grants: Page[GrantObject]


class TopUpObject(TypedDict):
    """A top-up. The credits are available once its payment has succeeded; its job has the events."""

    object: Literal["billing.top_up"]
    invoice: InvoiceObject
    payment: PaymentObject


def read(request: Request) -> Response:
    """`GET /billing/credits`: read the account's credits and its grants, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        details = billing_details.read(connection, request.caller.account_id)
        grants = credits.list_grants(connection, request.caller.account_id, after=query.after, limit=query.fetch_limit)
        page = page_object([grant_object(grant) for grant in grants[: query.limit]], has_more=len(grants) > query.limit)
        return json_response(_credits_object(connection, details, page))


def _credits_object(connection: Connection, details: BillingDetails | None, grants: Page[GrantObject]) -> CreditsObject:
    balance = credits.balance(connection, details) if details else ZERO
    unbilled = credits.unbilled_usage(connection, details) if details else ZERO
    currency = details.currency if details else numbering.read_seller(connection).default_currency
    return {
        "object": "billing.credits",
        "currency": currency,
        "balance": format_amount(balance, currency),
        "unbilled_usage": format_amount(unbilled, currency),
        "available": format_amount(credits.available(connection, details) if details else ZERO, currency),
        "auto_top_up": _rule_object(details) if details else None,
        "grants": grants,
    }


def _rule_object(details: BillingDetails) -> AutoTopUpObject | None:
    if (rule := details.auto_top_up) is None:
        return None
    return {"below": rule["below"], "amount": rule["amount"], "monthly_limit": rule["monthly_limit"]}


def create_top_up(request: Request) -> Response:
    """`POST /billing/credits/top_up`: buy credits. A repetition with the same Idempotency-Key buys nothing more."""
    body = bodies.parse(request.body, TopUp)
    invoice_id, account_id = request.new_id("inv"), request.caller.account_id
    with request.platform.database.transaction() as connection:
        billing_details.ensure(connection, account_id)
        billing_details.lock(connection, account_id)
        invoice, payment = _earlier(connection, invoice_id, account_id) or _start(connection, request, body, invoice_id)
    if payment.job_id and payment.state == "pending":
        request.platform.queue.announce_job(payment.job_id, (), account_id)
    return json_response(_top_up_object(invoice, payment))


def _earlier(connection: Connection, invoice_id: str, account_id: str) -> tuple[Invoice, Payment] | None:
    """Return what an earlier request with the same Idempotency-Key has created."""
    try:
        invoice = invoices.read(connection, invoice_id, account_id)
    except NotFound:
        return None
    return invoice, payments.list_payments(connection, account_id, invoice_id=invoice_id)[-1]


def _start(connection: Connection, request: Request, body: TopUp, invoice_id: str) -> tuple[Invoice, Payment]:
    account_id = request.caller.account_id
    invoice = top_up.start(connection, account_id, body.amount, invoice_id=invoice_id)
    payment = payments.request_payment(
        connection,
        account_id,
        invoice_id=invoice.id,
        amount=invoice.amount_due,
        currency=invoice.currency,
        gateway=request.platform.settings.gateway,
        payment_method_id=body.payment_method_id,
        owner_id=request.caller.user_id,
    )
    return invoice, payment


def _top_up_object(invoice: Invoice, payment: Payment) -> TopUpObject:
    return {"object": "billing.top_up", "invoice": invoice_object(invoice), "payment": payment_object(payment)}


def put_auto_top_up(request: Request) -> Response:
    """`PUT /billing/credits/auto_top_up`: top up automatically when little is available."""
    body = bodies.parse(request.body, AutoTopUp)
    with request.platform.database.transaction() as connection:
        details = billing_details.ensure(connection, request.caller.account_id)
        names = ("below", "amount", "monthly_limit")
        amounts = {name: check_amount(getattr(body, name), details.currency, name) for name in names}
        if amounts["monthly_limit"] < amounts["amount"]:
            raise InvalidRequest("'monthly_limit' should be at least 'amount'.", param="monthly_limit")
        return _set_rule(connection, request, {name: str(amount) for name, amount in amounts.items()})


def delete_auto_top_up(request: Request) -> Response:
    """`DELETE /billing/credits/auto_top_up`: stop automatic top-ups."""
    with request.platform.database.transaction() as connection:
        billing_details.ensure(connection, request.caller.account_id)
        return _set_rule(connection, request, None)


def _set_rule(connection: Connection, request: Request, rule: dict[str, str] | None) -> Response:
    caller = request.caller
    details = billing_details.set_auto_top_up(connection, caller.account_id, rule)
    audit.record(
        connection, "auto_top_up.changed", request.origin, account_id=caller.account_id, user_id=caller.user_id,
        details={"rule": rule},
    )  # fmt: skip
    return json_response({"object": "billing.auto_top_up", "auto_top_up": _rule_object(details)})


class AutoTopUpSet(TypedDict):
    """The rule of automatic top-ups after a change; null: there are none."""

    object: Literal["billing.auto_top_up"]
    auto_top_up: AutoTopUpObject | None
