"""`GET /v1/memory_spaces`: list the end users with memories."""

from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.memory import spaces
from models.memory.spaces import MAX_NAME
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query


class ListSpaces(Listing):
    """The query of `GET /v1/memory_spaces`. `after` is the name of a space."""

    after: str = Field("", max_length=MAX_NAME)


class SpaceObject(TypedDict):
    """The memories of an end user. `id` is the name; `memories` is the number of searchable memories."""

    id: str
    object: Literal["memory_space"]
    memories: int
    created_at: int


def list_spaces(request: Request) -> Response:
    """`GET /v1/memory_spaces`: list the caller's end users with memories, in the order of their names."""
    query, caller = parse_query(request.query, ListSpaces), request.caller
    with request.platform.database.connection() as connection:
        rows = spaces.page(connection, caller.account_id, caller.user_id, after=query.after, limit=query.fetch_limit)
    return page_response(rows, query.limit, space_object)


def space_object(row: dict[str, Any]) -> SpaceObject:
    """Convert a space to its API object."""
    return {
        "id": row["end_user"],
        "object": "memory_space",
        "memories": row["live"],
        "created_at": int(row["opened_at"].timestamp()),
    }
