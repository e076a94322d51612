"""`/v1/events`: the events of an account in the last 30 days. Reading them is an alternative to webhooks."""

from typing import Annotated, Literal, cast

from pydantic import Field
from starlette.responses import Response

from models.delivery import events
from models.delivery.events import AccountEvent
from models.platform.errors import InvalidRequest, NotFound
from pipelines.delivery import event_object as objects
from web.api.request import Request
from web.api.webhooks.schemas import EventObject, EventPattern
from web.http.paging import Listing, page_response
from web.http.queries import as_list, parse_query
from web.http.responses import json_response


class ListEvents(Listing):
    """The query of `GET /v1/events`. `type` is a type or a pattern, and may be repeated.

    With `order=asc` the list begins with the oldest event: a poller passes the id of its last event as `after`.
    """

    type: Annotated[list[EventPattern], as_list, Field(max_length=64)] | None = None
    order: Literal["asc", "desc"] = "desc"


def list_events(request: Request) -> Response:
    """`GET /v1/events`: list the account's events, newest first."""
    query = parse_query(request.query, ListEvents)
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        records = events.page(
            connection,
            account_id,
            after=query.after,
            limit=query.fetch_limit,
            oldest_first=query.order == "asc",
            patterns=query.type,
        )
        if not records and query.after and events.read(connection, query.after, account_id) is None:
            message = f"There is no event with id '{query.after}', or it is older than {events.KEPT_DAYS} days."
            raise InvalidRequest(message, param="after", code="event_not_found")
    return page_response(records, query.limit, _event_object)


def read(request: Request) -> Response:
    """`GET /v1/events/{id}`: read an event."""
    event_id = request.path_params["event_id"]
    with request.platform.database.connection() as connection:
        event = events.read(connection, event_id, request.caller.account_id)
    if event is None:
        raise NotFound(f"Event with id '{event_id}' not found.", param="event_id")
    return json_response(_event_object(event))


def _event_object(event: AccountEvent) -> EventObject:
    return cast(EventObject, objects.event_object(event))
