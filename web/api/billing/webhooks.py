"""`POST /webhooks/{gateway}`: accept the events of a payment gateway, which signs them."""

from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import Conflict, InvalidRequest, NotFound
from pipelines.billing import gateway_notices
from pipelines.billing.gateways.gateway import Gateway
from web.api.request import Request
from web.http.responses import json_response

#: Bytes of an event. Stripe's are at most a few dozen kilobytes.
MAX_BODY = 512 * 1024


class WebhookReceived(TypedDict):
    """The answer to an event, also to one that was received before."""

    received: bool


def receive(request: Request) -> Response:
    """`POST /webhooks/{gateway}`: verify and store an event. A job applies it afterwards."""
    gateway = _gateway(request)
    notice = gateway.verify(request.body, request.headers)
    payload = _text(request.body)
    with request.platform.database.transaction() as connection:
        job_id = gateway_notices.accept(connection, gateway.name, notice, payload)
    if job_id is not None:
        request.platform.queue.nudge()
    received: WebhookReceived = {"received": True}
    return json_response(received)


def _gateway(request: Request) -> Gateway:
    name = request.path_params["gateway"]
    try:
        return request.platform.gateways.get(name)
    except Conflict:
        raise NotFound("This server does not use the payment gateway.") from None


def _text(body: bytes) -> str:
    """Return a signed body as text that can be stored."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.", code="invalid_json") from None
    if "\0" in text:
        raise InvalidRequest("The body contains a NUL character.", code="invalid_character")
    return text
