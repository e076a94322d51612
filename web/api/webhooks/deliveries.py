"""`/v1/webhook_deliveries`: the results of sending events to endpoints."""

from pydantic import Field
from starlette.responses import Response

from models.delivery import deliveries
from models.delivery.deliveries import DeliveryState
from pipelines.delivery import webhook_endpoints
from web.api.request import Request
from web.api.webhooks.schemas import delivery_object
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response


class ListDeliveries(Listing):
    """The query of `GET /v1/webhook_deliveries`."""

    endpoint_id: str | None = Field(None, max_length=100)
    event_id: str | None = Field(None, max_length=100)
    status: DeliveryState | None = None


def list_deliveries(request: Request) -> Response:
    """`GET /v1/webhook_deliveries`: list the account's deliveries, those of the newest events first."""
    query = parse_query(request.query, ListDeliveries)
    with request.platform.database.connection() as connection:
        records = deliveries.page(
            connection,
            request.caller.account_id,
            endpoint_id=query.endpoint_id,
            event_id=query.event_id,
            state=query.status,
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, delivery_object)


def read(request: Request) -> Response:
    """`GET /v1/webhook_deliveries/{id}`: read a delivery."""
    with request.platform.database.connection() as connection:
        delivery = webhook_endpoints.find_delivery(connection, request.caller, request.path_params["delivery_id"])
    return json_response(delivery_object(delivery))


def replay(request: Request) -> Response:
    """`POST /v1/webhook_deliveries/{id}/replay`: send an event to its endpoint again."""
    platform = request.platform
    replayed = webhook_endpoints.replay_one(platform.database, request.caller, request.path_params["delivery_id"])
    platform.queue.nudge(replayed.endpoint_id)
    return json_response(delivery_object(replayed))
