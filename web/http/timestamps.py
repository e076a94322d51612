"""Timestamps of the API: whole Unix seconds, as OpenAI's API has them."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

#: Unix seconds, to the end of the year 9999.
UnixTime = Annotated[int, Field(ge=0, le=253_402_300_799)]


def from_unix(seconds: int | None) -> datetime | None:
    """Convert Unix seconds to a datetime in UTC; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_unix(time: datetime | None) -> int | None:
    """Convert a datetime to Unix seconds, rounded down; None stays None."""
    return None if time is None else int(time.timestamp())
