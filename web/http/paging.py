"""Lists that are read page by page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import Field
from starlette.responses import Response

from web.http.queries import RequestQuery
from web.http.responses import json_response, page_object

Record = TypeVar("Record")


class Listing(RequestQuery):
    """The query of a list: at most `limit` objects, beginning behind the object with the id `after`."""

    after: str | None = Field(None, max_length=100)
    limit: int = Field(20, ge=1, le=100)

    @property
    def fetch_limit(self) -> int:
        """How many records to select: one more than a page has, which shows whether there is another page."""
        return self.limit + 1


def page_response(records: Sequence[Record], limit: int, to_object: Callable[[Record], Mapping[str, Any]]) -> Response:
    """Return the first `limit` records as a page of objects; a record beyond them sets `has_more`."""
    objects = [to_object(record) for record in records[:limit]]
    return json_response(page_object(objects, has_more=len(records) > limit))
