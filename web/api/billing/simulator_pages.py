"""`/billing/simulator/…`: the pages of the simulated gateway, where a customer confirms a payment or adds a method."""

from html import escape

from pydantic import Field
from starlette.responses import Response

from models.platform.errors import Conflict, NotFound
from pipelines.billing.gateways.simulator import METHODS, Simulator
from web.api.request import Request
from web.http.queries import RequestQuery, parse_query

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class AnswerCharge(RequestQuery):
    """The query of `GET /billing/simulator/charges/{id}`. Without an answer the page asks for one."""

    confirmed: bool | None = None


class ChooseMethod(RequestQuery):
    """The query of `GET /billing/simulator/methods/{customer}`. Without a method the page asks for one."""

    ticket: str = Field("", max_length=200)
    method: str | None = Field(None, max_length=64)


def confirm_charge(request: Request) -> Response:
    """`GET /billing/simulator/charges/{id}`: confirm a simulated payment, or reject it."""
    query = parse_query(request.query, AnswerCharge)
    simulator = _simulator(request)
    if query.confirmed is None:
        links = {"?confirmed=true": "Confirm the payment", "?confirmed=false": "Reject it"}
        return _page("Simulated payment", links)
    charge = simulator.answer(request.path_params["charge_id"], confirmed=query.confirmed)
    request.platform.queue.nudge()
    return _page(f"The payment has {charge.state}. You can close this page.", {})


def choose_method(request: Request) -> Response:
    """`GET /billing/simulator/methods/{customer}`: add a simulated payment method."""
    query = parse_query(request.query, ChooseMethod)
    simulator, customer = _simulator(request), request.path_params["customer_id"]
    simulator.check_ticket(customer, query.ticket)
    if query.method is None:
        links = {f"?ticket={query.ticket}&method={name}": f"{label}: {name}" for name, label in METHODS.items()}
        return _page("Simulated payment methods", links)
    stored = simulator.store_method(customer, query.method)
    request.platform.queue.nudge()
    return _page(f"{stored.label} was added. You can close this page.", {})


def _simulator(request: Request) -> Simulator:
    """Return the simulated gateway. Raises NotFound on a server that uses another one."""
    try:
        gateway = request.platform.gateways.get("test")
    except Conflict:
        raise NotFound("This server does not simulate payments.") from None
    assert isinstance(gateway, Simulator)
    return gateway


def _page(title: str, links: dict[str, str]) -> Response:
    items = "".join(f'<li><a href="{escape(target)}">{escape(text)}</a></li>' for target, text in links.items())
    html = f"<!doctype html><title>{escape(title)}</title><h1>{escape(title)}</h1><ul>{items}</ul>"
    return Response(html, headers=HEADERS, media_type="text/html")
