"""JSON responses and OpenAI's list envelope."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import orjson
from starlette.responses import Response
from typing_extensions import TypedDict

ObjectType = TypeVar("ObjectType")


class Page(TypedDict, Generic[ObjectType]):
    """OpenAI's list envelope. `first_id` and `last_id` are the cursors for `before` and `after`."""

    object: Literal["list"]
    data: list[ObjectType]
    first_id: str | None
    last_id: str | None
    has_more: bool


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encode a value as a JSON response. orjson also encodes dataclasses, datetimes (RFC 3339) and string enums."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def page_object(data: Sequence[ObjectType], *, has_more: bool = False) -> Page[ObjectType]:
    """Wrap objects that have an `id` in OpenAI's list envelope."""
    ids: list[str] = [item["id"] for item in data]  # type: ignore[index]
    return {
        "object": "list",
        "data": list(data),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": has_more,
    }
