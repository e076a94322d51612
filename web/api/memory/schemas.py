"""Request and response schemas of `/v1/memories`."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from models.memory.memories import Filters, Memory, MemoryKind
from pipelines.memory.memory_input import Importance, MemoryInput, Metadata, Name, Text, Timestamp
from pipelines.memory.search_memories import HitObject
from pipelines.requests.validation import RequestBody
from web.api.requested_space import InSpace, SpaceName
from web.http.paging import Listing
from web.http.timestamps import to_unix

#: Memories per request.
MAX_MEMORIES = 1000

#: Characters of a query. The embedding model reads about the first 2,000.
MAX_QUERY_LENGTH = 8192

ConversationId = Annotated[str, Field(min_length=1, max_length=256)]


class CreateMemories(RequestBody):
    """The body of `POST /v1/memories`: the fields of one memory, or a list of `memories`. `space` names an end user."""

    space: SpaceName | None = None
    text: Text | None = None
    speaker: Name = ""
    occurred_at: Timestamp | None = None
    conversation_id: ConversationId | None = None
    metadata: Metadata | None = None
    importance: Importance | None = None
    kind: MemoryKind | None = None
    memories: Annotated[list[MemoryInput], Field(min_length=1, max_length=MAX_MEMORIES)] | None = None

    @model_validator(mode="after")
    def _require_text_or_memories(self) -> Self:
        if (self.text is None) == (self.memories is None):
            raise PydanticCustomError("value_error", "should have exactly one of 'text' and 'memories'")
        if self.memories is not None and self.model_fields_set - {"space"} != {"memories"}:
            raise PydanticCustomError(
                "value_error", "should have no other field beside 'memories'; set fields in each memory instead"
            )
        return self

    def to_inputs(self) -> list[MemoryInput]:
        """Return the memories to create."""
        if self.memories is not None:
            return self.memories
        return [MemoryInput.model_construct(**{name: getattr(self, name) for name in MemoryInput.model_fields})]


class UpdateMemory(RequestBody):
    """The body of `PATCH /v1/memories/{id}`. Omitted fields stay unchanged."""

    text: Text | None = None
    speaker: Name | None = None
    occurred_at: Timestamp | None = None
    conversation_id: ConversationId | None = None
    metadata: Metadata | None = None
    importance: Importance | None = None

    @model_validator(mode="after")
    def _require_change(self) -> Self:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise PydanticCustomError("value_error", "should have at least one field to update")
        return self


class ListMemories(Listing, InSpace):
    """The query of `GET /v1/memories`. `occurred_after` is inclusive, `occurred_before` exclusive."""

    after: str | None = Field(None, max_length=64)
    kind: MemoryKind | None = None
    speaker: Name | None = None
    conversation_id: ConversationId | None = None
    occurred_after: Timestamp | None = None
    occurred_before: Timestamp | None = None
    include_closed: bool = False

    def filters(self) -> Filters:
        """Return the filters of the list."""
        return Filters(self.kind, self.speaker, self.conversation_id, self.occurred_after, self.occurred_before)


class DeleteMemories(InSpace):
    """The query of `DELETE /v1/memories`: the memories of a conversation, or all."""

    conversation_id: ConversationId | None = None
    all: bool = False


class SearchMemories(RequestBody):
    """The body of `POST /v1/memories/search`."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_LENGTH)]
    space: SpaceName | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    kind: MemoryKind | None = None
    speaker: Name | None = None
    conversation_id: ConversationId | None = None
    after: Timestamp | None = None
    before: Timestamp | None = None
    metadata: Metadata | None = None
    include_neighbours: bool = False

    def filters(self) -> Filters:
        """Return the filters of the search."""
        return Filters(self.kind, self.speaker, self.conversation_id, self.after, self.before, self.metadata)


class MemoryObject(TypedDict):
    """A memory. `occurred_at` and `valid_from` are RFC 3339 in UTC, other times Unix seconds."""

    id: str
    object: Literal["memory"]
    kind: MemoryKind
    text: str
    speaker: str
    occurred_at: str
    conversation_id: str | None
    response_id: str | None
    metadata: dict[str, Any]
    importance: float
    recalled: int
    recalled_at: int | None
    valid_from: str | None
    closed_at: int | None
    closed_by: str | None
    created_at: int
    updated_at: int


class MemoryWithSources(MemoryObject):
    """A memory with the ids of the memories that it was derived from."""

    sources: list[str]


class SearchResults(TypedDict):
    """The hits of a search, best first."""

    object: Literal["list"]
    data: list[HitObject]


class MemoryDeleted(TypedDict):
    """A deleted memory."""

    id: str
    object: Literal["memory"]
    deleted: Literal[True]


class MemoriesDeleted(TypedDict):
    """The number of deleted memories."""

    object: Literal["memory.deletion"]
    deleted: int


def memory_object(memory: Memory) -> MemoryObject:
    """Convert a memory to its API object."""
    return {
        "id": memory.id,
        "object": "memory",
        "kind": memory.kind,
        "text": memory.text,
        "speaker": memory.speaker,
        "occurred_at": _rfc3339(memory.occurred_at),
        "conversation_id": memory.conversation_id,
        "response_id": memory.response_id,
        "metadata": memory.metadata,
        "importance": memory.importance,
        "recalled": memory.recalled,
        "recalled_at": to_unix(memory.recalled_at),
        "valid_from": _rfc3339(memory.valid_from) if memory.valid_from else None,
        "closed_at": to_unix(memory.closed_at),
        "closed_by": memory.closed_by,
        "created_at": int(memory.created_at.timestamp()),
        "updated_at": int(memory.updated_at.timestamp()),
    }


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
