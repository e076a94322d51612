"""`/billing/details`: whom the account's invoices name, and in which currency it pays."""

from typing import Annotated, Literal

import email_validator
from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import audit
from models.billing import billing_details, numbering
from models.billing.billing_details import BillingDetails
from models.billing.currencies import format_amount
from models.platform.database import Connection
from pipelines.requests.validation import RequestBody
from web.api.accounts.names import Name
from web.api.request import Request
from web.http import bodies
from web.http.responses import json_response

#: Texts of several lines on an invoice: no control characters but line breaks.
Lines = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]*$")]
OneLine = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]


def _check_email(address: str) -> str:
    if not address:
        return address
    try:
        checked = email_validator.validate_email(
            address, check_deliverability=False, allow_smtputf8=False, test_environment=True
        )
    except email_validator.EmailNotValidError:
        raise ValueError("should be an e-mail address") from None
    return checked.normalized


BillingEmail = Annotated[str, StringConstraints(max_length=254), AfterValidator(_check_email)]


class PutBillingDetails(RequestBody):
    """The body of `PUT /billing/details`. Omitted fields stay unchanged; without `email` invoices go to the owners.

    `currency` can be changed until something has been billed. `country` is a code of ISO 3166, such as `DE`.
    """

    currency: str | None = Field(None, max_length=3)
    name: Name | None = None
    address: Lines | None = None
    country: str | None = Field(None, pattern=r"^(?:[A-Z]{2})?$")
    email: BillingEmail | None = None
    tax_id: OneLine | None = None


class TaxObject(TypedDict):
    """The tax of an account, which operators set. `rate` is in percent."""

    name: str
    rate: str
    note: str


class BillingDetailsObject(TypedDict):
    """Whom an account's invoices name. `created_at` is null until the account has something to do with money."""

    object: Literal["billing.details"]
    currency: str
    name: str
    address: str
    country: str
    email: str
    tax_id: str
    tax: TaxObject
    created_at: int | None


def read(request: Request) -> Response:
    """`GET /billing/details`: read the account's billing details."""
    with request.platform.database.connection() as connection:
        details = billing_details.read(connection, request.caller.account_id)
        return json_response(details_object(details) if details else _without_details(connection))


def update(request: Request) -> Response:
    """`PUT /billing/details`: change the account's billing details, for later invoices."""
    body = bodies.parse(request.body, PutBillingDetails)
    changes = body.model_dump(exclude_none=True)
    account_id, caller = request.caller.account_id, request.caller
    with request.platform.database.transaction() as connection:
        billing_details.ensure(connection, account_id, changes.pop("currency", None))
        details = billing_details.update(connection, account_id, **changes)
        audit.record(
            connection, "billing_details.changed", request.origin, account_id=account_id, user_id=caller.user_id,
            details={"fields": sorted(body.model_fields_set)},
        )  # fmt: skip
    return json_response(details_object(details))


def details_object(details: BillingDetails) -> BillingDetailsObject:
    """Convert billing details to their API object."""
    return {
        "object": "billing.details",
        "currency": details.currency,
        "name": details.name,
        "address": details.address,
        "country": details.country,
        "email": details.email,
        "tax_id": details.tax_id,
        "tax": {"name": details.tax_name, "rate": format_amount(details.tax_rate), "note": details.tax_note},
        "created_at": int(details.created_at.timestamp()),
    }


def _without_details(connection: Connection) -> BillingDetailsObject:
    """Return the object of an account that has nothing to do with money yet. Reading must not change that."""
    return {
        "object": "billing.details",
        "currency": numbering.read_seller(connection).default_currency,
        "name": "",
        "address": "",
        "country": "",
        "email": "",
        "tax_id": "",
        "tax": {"name": "", "rate": "0", "note": ""},
        "created_at": None,
    }
