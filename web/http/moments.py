"""Times as the API tells them: whole Unix seconds, as OpenAI does."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

#: Unix seconds, to the end of the year 9999.
Moment = Annotated[int, Field(ge=0, le=253_402_300_799)]


def moment(seconds: int | None) -> datetime | None:
    """What was meant."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def seconds(moment: datetime | None) -> int | None:
    """What is told."""
    return None if moment is None else int(moment.timestamp())
