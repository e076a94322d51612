"""The bodies and objects of webhook endpoints, deliveries and events. Times are in Unix seconds."""

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from models.delivery.deliveries import Delivery, DeliveryState
from models.delivery.endpoints import DisabledReason, Endpoint, EndpointStatus
from models.delivery.event_types import EventType, unknown_patterns
from pipelines.requests.turn_request import Metadata
from pipelines.requests.validation import RequestBody
from web.http.timestamps import UnixTime, to_unix

#: Most characters of a URL.
MAX_URL = 2_048


def _check_pattern(pattern: str) -> str:
    if unknown_patterns([pattern]):
        message = "matches no event type. GET /v1/webhook_event_types lists them; response.* and * are patterns"
        raise PydanticCustomError("event_pattern", message)
    return pattern


EventPattern = Annotated[str, Field(max_length=64), AfterValidator(_check_pattern)]
EventPatterns = Annotated[list[EventPattern], Field(min_length=1, max_length=64)]
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL)]
Name = Annotated[str, Field(max_length=256)]
Description = Annotated[str, Field(max_length=4_096)]


class CreateWebhookEndpoint(RequestBody):
    """The body of `POST /v1/webhook_endpoints`. `event_types` may have patterns such as `response.*`, and `*`."""

    url: Url
    event_types: EventPatterns
    name: Name = ""
    description: Description = ""
    metadata: Metadata | None = None


class UpdateWebhookEndpoint(RequestBody):
    """The body of `POST /v1/webhook_endpoints/{id}`. Omitted fields stay unchanged."""

    url: Url | None = None
    event_types: EventPatterns | None = None
    name: Name | None = None
    description: Description | None = None
    metadata: Metadata | None = None


class RotateSecret(RequestBody):
    """The body of `POST /v1/webhook_endpoints/{id}/rotate_secret`.

    The previous secret signs, too, for a day, unless `keep_old_secret_active_for_24_hours` is false.
    """

    keep_old_secret_active_for_24_hours: bool = True


class TestWebhookEndpoint(RequestBody):
    """The body of `POST /v1/webhook_endpoints/{id}/test`."""

    __test__ = False  # no test of pytest

    event_type: EventType


class ReplayEvents(RequestBody):
    """The body of `POST /v1/webhook_endpoints/{id}/replay`: all events since a time, or what was not delivered."""

    since: UnixTime
    undelivered_only: bool = False


class WebhookEndpointObject(TypedDict):
    """A webhook endpoint. `signing_secret_hint` has the last characters of its secret.

    disabled_reason        `requested`, `gone` (it answered 410) or `failing` (for five days)
    failing_since          the first failure after the last success
    previous_secret_until  until when the previous secret signs, too
    """

    id: str
    object: Literal["webhook_endpoint"]
    created_at: int
    updated_at: int
    name: str
    description: str
    url: str
    event_types: list[str]
    metadata: dict[str, str]
    status: EndpointStatus
    disabled_reason: DisabledReason | None
    failing_since: int | None
    signing_secret_hint: str
    previous_secret_until: int | None


class WebhookEndpointWithSecret(WebhookEndpointObject):
    """A webhook endpoint with its secret, which only the responses to its creation and rotation have."""

    signing_secret: str


class WebhookEndpointDeleted(TypedDict):
    """A deleted webhook endpoint."""

    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: bool


class WebhookEndpointTest(TypedDict):
    """The answer of an endpoint to a sample event. `success`: there was one, whatever its status."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    seconds: float
    success: Literal[True]


class DeliveryAttempt(TypedDict):
    """An attempt at a delivery. `status_code` is null without an answer: `error` says why. `body` is its beginning."""

    at: int
    status_code: int | None
    seconds: float
    body: str
    error: str | None


class WebhookDeliveryObject(TypedDict):
    """The delivery of an event to an endpoint, with its last attempts.

    status  `pending`, `delivered`, `failed`, or `held` while the endpoint is disabled
    tries   attempts since the event, or since the last replay
    """

    id: str
    object: Literal["webhook_delivery"]
    webhook_endpoint_id: str
    event_id: str
    event_type: str
    status: DeliveryState
    tries: int
    attempts: list[DeliveryAttempt]
    next_attempt_at: int | None
    created_at: int


class EventObject(TypedDict):
    """An event: the body of its webhooks."""

    id: str
    object: Literal["event"]
    created_at: int
    type: str
    data: dict[str, Any]


class EventTypeList(TypedDict):
    """The types of events, and a description of each."""

    object: Literal["list"]
    data: list[str]
    descriptions: dict[str, str]


def endpoint_object(endpoint: Endpoint) -> WebhookEndpointObject:
    """Convert an endpoint to its API object, without its secrets."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": int(endpoint.created_at.timestamp()),
        "updated_at": int(endpoint.updated_at.timestamp()),
        "name": endpoint.name,
        "description": endpoint.description,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "metadata": endpoint.metadata,
        "status": endpoint.endpoint_status,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": to_unix(endpoint.failing_since),
        "signing_secret_hint": endpoint.secret_hint,
        "previous_secret_until": to_unix(endpoint.previous_secret_until),
    }


def delivery_object(delivery: Delivery) -> WebhookDeliveryObject:
    """Convert a delivery to its API object."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "webhook_endpoint_id": delivery.endpoint_id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "status": delivery.delivery_state,
        "tries": delivery.tries,
        "attempts": cast(list[DeliveryAttempt], delivery.attempts),
        "next_attempt_at": to_unix(delivery.next_attempt_at),
        "created_at": int(delivery.created_at.timestamp()),
    }
