"""The shapes of answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.responses import Response


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
