"""Content parts of input items, and the types of their fields."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from pipelines.requests.file_parts import InputFile
from pipelines.requests.validation import RequestBody, branch, discriminate_by_type, discriminate_text

#: Input items of one turn.
MAX_ITEMS = 1000

ItemStatus = Literal["in_progress", "completed", "incomplete"]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Id = Annotated[str, Field(min_length=1, max_length=128)]

AuthorName = Annotated[
    Annotated[str, Field(max_length=256)] | None,
    Field(description="The participant that wrote the message. The prompt contains it."),
]


class InputText(RequestBody):
    """A part of a message: text of the input."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint, accepted without effect.")


class PlainText(RequestBody):
    """A part of a message: text, in the notation of Chat Completions."""

    type: Literal["text"]
    text: str


class OutputText(RequestBody):
    """A part of a message: text of an earlier output. Annotations and log probabilities are ignored."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(RequestBody):
    """A part of a message: the refusal of a model. It becomes text of the prompt."""

    type: Literal["refusal"]
    refusal: str


ContentPart = Annotated[
    Annotated[InputText, Tag(branch("input_text"))]
    | Annotated[OutputText, Tag(branch("output_text"))]
    | Annotated[Refusal, Tag(branch("refusal"))]
    | Annotated[PlainText, Tag(branch("text"))]
    | Annotated[InputFile, Tag(branch("input_file"))],
    discriminate_by_type("input_text", "input_file", "output_text", "refusal", "text"),
]
Content = Annotated[
    Annotated[str, Tag(branch("text"))]
    | Annotated[list[ContentPart], Field(max_length=MAX_ITEMS), Tag(branch("other"))],
    discriminate_text("a list of content parts"),
]
OutputPart = Annotated[
    Annotated[InputText, Tag(branch("input_text"))]
    | Annotated[OutputText, Tag(branch("output_text"))]
    | Annotated[PlainText, Tag(branch("text"))],
    discriminate_by_type("input_text", "output_text", "text"),
]
