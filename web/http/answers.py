"""The shapes of answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import orjson
from starlette.responses import Response
from typing_extensions import TypedDict

Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """OpenAI's list envelope, as `page` fills it: the type of an answer is `Page[KeyObject]`."""

    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON. orjson writes dataclasses, datetimes (RFC 3339) and string enums as they are."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def page(data: Sequence[Any], *, has_more: bool = False) -> dict[str, Any]:
    """OpenAI's list envelope. `data` has ids, and `first_id` and `last_id` are the cursors for `before` and `after`."""
    ids = [item["id"] for item in data]
    return {
        "object": "list",
        "data": list(data),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": has_more,
    }
