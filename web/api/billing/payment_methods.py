"""`/billing/payment_methods` and `/billing/portal`: payment methods, which the gateway's own pages add and show."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.billing import payment_methods
from models.billing.payment_methods import PaymentMethod
from models.billing.payments import GatewayName
from models.platform.urls import url_error
from pipelines.billing import stored_methods
from pipelines.billing.gateways.simulator import METHODS
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response


def _web_address(value: str) -> str:
    if fault := url_error(value, "http", "https"):
        raise ValueError(fault)
    return value


ReturnUrl = Annotated[str, Field(max_length=2000), AfterValidator(_web_address)]


class AddPaymentMethod(RequestBody):
    """The body of `POST /billing/payment_methods`.

    `return_url` is where the gateway's page sends the customer afterwards; by default the start page of this server.
    `method` names one of the simulated gateway's methods, which needs no page.
    """

    return_url: ReturnUrl | None = None
    method: str | None = Field(None, max_length=64, description=f"Of the gateway `test`: {', '.join(METHODS)}.")


class OpenPortal(RequestBody):
    """The body of `POST /billing/portal`."""

    return_url: ReturnUrl | None = None


class PaymentMethodObject(TypedDict):
    """A payment method, which the gateway stores. `label` is such as `Visa 4242`."""

    id: str
    object: Literal["payment_method"]
    gateway: GatewayName
    label: str
    is_default: bool
    created_at: int


class PaymentMethodSetUp(TypedDict):
    """The page of the gateway on which the customer adds a payment method, which then appears in the list."""

    object: Literal["payment_method_setup"]
    url: str


class PaymentMethodDeleted(TypedDict):
    """A payment method that was deleted, here and at the gateway."""

    id: str
    object: Literal["payment_method.deleted"]
    deleted: bool


class PortalObject(TypedDict):
    """The gateway's page on which the customer manages payment methods. The link is valid for a few minutes."""

    object: Literal["portal"]
    url: str


def list_methods(request: Request) -> Response:
    """`GET /billing/payment_methods`: list the account's payment methods, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = payment_methods.list_methods(
            connection, request.caller.account_id, after=query.after, limit=query.fetch_limit
        )
    return page_response(records, query.limit, method_object)


def create(request: Request) -> Response:
    """`POST /billing/payment_methods`: begin to add a payment method; respond with the page that does it."""
    body = bodies.parse(request.body, AddPaymentMethod)
    platform = request.platform
    added = stored_methods.set_up(
        platform.database,
        platform.gateways.get(platform.gateways.default),
        request.caller,
        request.origin,
        return_url=body.return_url or platform.settings.public_address,
        method=body.method,
    )
    platform.queue.nudge()
    if isinstance(added, PaymentMethod):
        return json_response(method_object(added), 201)
    set_up: PaymentMethodSetUp = {"object": "payment_method_setup", "url": added}
    return json_response(set_up, 202)


def make_default(request: Request) -> Response:
    """`POST /billing/payment_methods/{id}/default`: charge this method from now on."""
    method_id = request.path_params["payment_method_id"]
    method = stored_methods.set_default(request.platform.database, request.caller, request.origin, method_id)
    return json_response(method_object(method))


def delete(request: Request) -> Response:
    """`DELETE /billing/payment_methods/{id}`: delete a payment method; the newest one left becomes the default."""
    method_id = request.path_params["payment_method_id"]
    platform = request.platform
    with platform.database.connection() as connection:
        method = payment_methods.read(connection, method_id, request.caller.account_id)
    gateway = platform.gateways.get(method.gateway)
    stored_methods.remove(platform.database, gateway, request.caller, request.origin, method)
    deleted: PaymentMethodDeleted = {"id": method.id, "object": "payment_method.deleted", "deleted": True}
    return json_response(deleted)


def open_portal(request: Request) -> Response:
    """`POST /billing/portal`: get a link to the gateway's page for the account's payment methods."""
    body = bodies.parse(request.body, OpenPortal)
    platform = request.platform
    url = stored_methods.open_portal(
        platform.database,
        platform.gateways.get(platform.gateways.default),
        request.caller,
        return_url=body.return_url or platform.settings.public_address,
    )
    portal: PortalObject = {"object": "portal", "url": url}
    return json_response(portal)


def method_object(method: PaymentMethod) -> PaymentMethodObject:
    """Convert a payment method to its API object."""
    return {
        "id": method.id,
        "object": "payment_method",
        "gateway": method.gateway,
        "label": method.label,
        "is_default": method.is_default,
        "created_at": int(method.created_at.timestamp()),
    }
