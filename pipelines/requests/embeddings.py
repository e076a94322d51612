"""Request parameters of embeddings, and the object that answers them."""

import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest, JobFailed, NotFound, RequestError
from models.platform.settings import Settings
from models.platform.texts import truncate
from models.serving.served_models import DEFAULT_ALIAS
from models.turns.embeddings import NUMBER_BYTES, EmbeddingResult
from pipelines.inference.registry import embedder_name
from pipelines.requests.turn_request import ClientLabel
from pipelines.requests.validation import RequestBody

#: Texts per request, as in OpenAI's API.
MAX_TEXTS = 2048

#: Characters of all texts of a request: about 250,000 tokens of English, which take two minutes on a slow core.
MAX_CHARACTERS = 1_000_000


def _reject_token_ids(value: Any) -> Any:
    """Reject token ids, which belong to the vocabulary of another model."""
    inner = value[0] if isinstance(value, list) and value else value
    if inner != [] and isinstance(inner, int | list):
        raise PydanticCustomError(
            "invalid_value", "should be a string or a list of strings; token ids are not supported"
        )
    return [value] if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]


class CreateEmbeddings(RequestBody):
    """The body of `POST /v1/embeddings`."""

    input: Annotated[
        list[Text],
        Field(min_length=1, max_length=MAX_TEXTS),
        BeforeValidator(_reject_token_ids, json_schema_input_type=str | list[str]),
    ]
    model: Annotated[str, Field(max_length=256)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=1_000_000)
    user: ClientLabel | None = None


class EmbeddingObject(TypedDict):
    """An embedding. `embedding` is a list of numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """The billed tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """The embeddings of the texts, in order."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


def embedding_list(result: EmbeddingResult, encoding: str) -> EmbeddingList:
    """Convert a result to its API object, with the encoding `float` or `base64`."""
    data: list[EmbeddingObject] = [
        {"object": "embedding", "index": index, "embedding": _encode(vector, encoding)}
        for index, vector in enumerate(result.vectors)
    ]
    usage: EmbeddingUsage = {"prompt_tokens": result.prompt_tokens, "total_tokens": result.prompt_tokens}
    return {"object": "list", "data": data, "model": result.model, "usage": usage}


def _encode(vector: bytes, encoding: str) -> list[float] | str:
    return (
        b64encode(vector).decode()
        if encoding == "base64"
        else list(struct.unpack(f"<{len(vector) // NUMBER_BYTES}f", vector))
    )


def check_embeddings(body: CreateEmbeddings, settings: Settings) -> None:
    """Raise NotFound for an unknown model, and InvalidRequest for too many characters."""
    model = embedder_name(settings)
    if body.model not in (None, DEFAULT_ALIAS, model):
        raise NotFound(
            f"The model '{truncate(str(body.model))}' does not exist or does not support embeddings. Use '{model}'.",
            param="model",
            code="model_not_found",
        )
    if (characters := _characters(body.input)) > MAX_CHARACTERS:
        message = f"'input' is too long: {characters:,} characters in total, the maximum is {MAX_CHARACTERS:,}."
        raise InvalidRequest(message, param="input", code="string_above_max_length")


def _characters(texts: Sequence[str]) -> int:
    return sum(len(text) for text in texts)


def embedding_error(error: Mapping[str, Any]) -> RequestError | JobFailed:
    """Return the error of a request whose job has failed with `error`."""
    match error.get("code"):
        case "context_length_exceeded" as code:
            return InvalidRequest(error["message"], param="input", code=code)
        case "unsupported_dimensions":
            return InvalidRequest(error["message"], param="dimensions", code="unsupported_value")
        case _:
            return JobFailed(
                "The embeddings were not created because of an internal error, which was recorded for the operators."
            )
