"""Lists that are read page by page."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import Field
from starlette.responses import Response

from web.http.answers import json_answer, page
from web.http.validation import Query

Record = TypeVar("Record")


class Listing(Query):
    """The query of a list: at most `limit`, those behind the one with the id `after`."""

    after: str | None = Field(None, max_length=100)
    limit: int = Field(20, ge=1, le=100)

    @property
    def wanted(self) -> int:
        """How many to look for: one more than a page has, which tells whether there are more."""
        return self.limit + 1


def paged(found: Sequence[Record], limit: int, shown: Callable[[Record], Any]) -> Response:
    """A page of at most so many of what was found, each as it is shown; what was found beyond is told as more."""
    return json_answer(page([shown(record) for record in found[:limit]], has_more=len(found) > limit))
