"""The arguments of the tools, whose JSON Schemas clients show to their models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from pipelines.memory.memory_input import MAX_TEXT_LENGTH
from pipelines.requests.validation import RequestBody
from web.api.memory.schemas import MAX_QUERY_LENGTH
from web.api.requested_space import SpaceName

#: Repeats of a call with the same key have one effect.
RepeatKey = Annotated[
    str,
    Field(
        pattern="^[!-~]+$",
        min_length=1,
        max_length=255,
        description="Repeats with the same key and arguments create one thing and return the same.",
    ),
]

ObjectId = Annotated[str, Field(min_length=1, max_length=256)]


class AskArguments(RequestBody):
    """The arguments of `ask`."""

    text: Annotated[str, Field(min_length=1, description="The question or task.")]
    model: Annotated[
        str | None,
        Field(max_length=256, description="A model, or `agent/NAME` for an agent. By default the default model."),
    ] = None
    instructions: Annotated[str | None, Field(description="Instructions for this turn, before the text.")] = None
    conversation: Annotated[
        ObjectId | None, Field(description="The id of the conversation that the turn belongs to.")
    ] = None
    previous_response_id: Annotated[
        ObjectId | None, Field(description="The id of the response that the turn continues, instead of a conversation.")
    ] = None
    idempotency_key: RepeatKey | None = None


class MemorySearchArguments(RequestBody):
    """The arguments of `memory_search`."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_LENGTH, description="What to look for.")]
    limit: Annotated[int, Field(ge=1, le=100, description="The most memories to return.")] = 10
    kind: Annotated[Literal["episode", "fact", "insight"] | None, Field(description="Only memories of this kind.")] = (
        None
    )
    conversation_id: Annotated[ObjectId | None, Field(description="Only memories of this conversation.")] = None
    space: Annotated[SpaceName | None, Field(description="The end user whose memories these are.")] = None


class MemoryWriteArguments(RequestBody):
    """The arguments of `memory_write`."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH, description="The text to remember.")]
    speaker: Annotated[str | None, Field(max_length=256, description="Who said it.")] = None
    kind: Annotated[Literal["episode", "fact", "insight"] | None, Field(description="By default an episode.")] = None
    space: Annotated[SpaceName | None, Field(description="The end user whose memory this is.")] = None
    idempotency_key: RepeatKey | None = None


class JobsArguments(RequestBody):
    """The arguments of `jobs`."""

    action: Annotated[Literal["list", "read", "cancel"], Field(description="`read` and `cancel` need an `id`.")] = (
        "list"
    )
    id: Annotated[
        ObjectId | None,
        Field(description="The id of a job (`job_…`), or of a response (`resp_…`), whose answer `read` returns."),
    ] = None
    state: Annotated[
        Literal["scheduled", "queued", "running", "waiting", "completed", "failed", "cancelled", "dead"] | None,
        Field(description="List only jobs in this state."),
    ] = None
    kind: Annotated[
        str | None, Field(max_length=64, description="List only jobs of this kind, such as `turn.run`.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=100, description="The most jobs to list.")] = 20
    after: Annotated[ObjectId | None, Field(description="List the jobs after the one with this id.")] = None


def schema_of(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of arguments. Optional ones are left out instead of null, as models prefer it."""
    schema = arguments.model_json_schema()
    properties = {name: _property(value) for name, value in schema["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _property(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an argument, without pydantic's title and without null."""
    value = {key: part for key, part in schema.items() if key not in ("title", "anyOf") and part is not None}
    types = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    return {**value, **(types[0] if types else {})}
