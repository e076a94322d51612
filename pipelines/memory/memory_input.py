"""Validate memories of callers: those of a request, and the lines of an import."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from models.memory.memories import MemoryKind, NewMemory

#: Characters of a text. Its vector covers the first 512 tokens, its lexical terms all of it.
MAX_TEXT_LENGTH = 32_768

#: Bytes of metadata, as JSON.
MAX_METADATA_BYTES = 16_384

UNIX_SECONDS = re.compile(r"-?\d{9,11}(\.\d+)?")

#: The range of a timestamp: a day within that of `datetime`, so that no time zone leaves it.
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def _parse_timestamp(value: Any) -> Any:
    """Parse RFC 3339 text or Unix seconds. Text needs a time zone, because a local time is ambiguous."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str) and UNIX_SECONDS.fullmatch(value):  # numbers in a query string are text
            value = datetime.fromtimestamp(float(value), UTC)
        elif isinstance(value, str):
            value = datetime.fromisoformat(value)
        else:
            raise PydanticCustomError(
                "moment_type", "should be RFC 3339 text, such as 2026-05-04T10:00:00Z, or a number"
            )
        timestamp = value if value.tzinfo else None
        if timestamp is None or not EARLIEST <= timestamp.astimezone(UTC) <= LATEST:
            raise ValueError
        return timestamp.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise PydanticCustomError(
            "moment", "should be RFC 3339 text with a time zone, such as 2026-05-04T10:00:00Z, or Unix seconds"
        ) from None


def _limit_size(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(orjson.dumps(value))
    except (TypeError, ValueError):
        raise PydanticCustomError("value_error", "should be JSON") from None
    if size > MAX_METADATA_BYTES:
        raise PydanticCustomError("value_error", "should have no more than 16384 bytes")
    return value


def _require_text(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("value_error", "should not be blank")
    return value


#: A point in time: RFC 3339 text or Unix seconds.
Timestamp = Annotated[datetime, BeforeValidator(_parse_timestamp, json_schema_input_type=str | float)]

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH), AfterValidator(_require_text)]
Name = Annotated[str, Field(max_length=256)]
Metadata = Annotated[dict[str, Any], AfterValidator(_limit_size)]
Importance = Annotated[float, Field(ge=0, le=1)]


class MemoryInput(BaseModel):
    """A memory to write: one of `POST /v1/memories`, or a line of an import."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    text: Text
    speaker: Name = ""
    occurred_at: Timestamp | None = None
    conversation_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    metadata: Metadata | None = None
    importance: Importance | None = None
    kind: MemoryKind | None = None

    def to_new_memory(self, memory_id: str, now: datetime, unique_key: str | None = None) -> NewMemory:
        """Convert to the row to insert; `now` replaces a missing `occurred_at`."""
        return NewMemory(
            memory_id,
            self.text,
            self.speaker,
            self.occurred_at or now,
            conversation_id=self.conversation_id,
            metadata=self.metadata or {},
            kind=self.kind or "episode",
            importance=0.5 if self.importance is None else self.importance,
            unique_key=unique_key,
        )

    def to_job_arguments(self) -> dict[str, Any]:
        """Convert to a job's arguments."""
        return self.model_dump(mode="json", exclude_none=True)


def from_job_arguments(arguments: Mapping[str, Any]) -> MemoryInput:
    """Parse a memory from a job's arguments."""
    return MemoryInput.model_validate(dict(arguments))
