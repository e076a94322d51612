"""`POST /v1/embeddings`: vectors of texts.

A job of the memory pool makes them: the door has no model. They are gone once they are read, so a client that leaves
cancels what nobody could read any more.
"""

import struct
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import Conflict, InvalidRequest, JobFailed, RequestError, Unavailable
from models.platform.settings import Settings
from models.turns import embeddings
from models.turns.embeddings import NUMBER_BYTES, EmbeddingResult
from pipelines.embeddings.start import enqueue_embedding
from pipelines.inference.registry import embedder_name
from web.api.job_results import abandon_job, job_headers, take_result
from web.api.request import Request
from web.api.turns.models import DEFAULT_MODEL
from web.api.turns.requests import ClientLabel
from web.http import bodies
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.validation import RequestBody, truncate

#: Texts of one request: OpenAI's own bound.
MAX_TEXTS = 2048

#: Characters of all texts together: some 250,000 tokens of English, which take a slow core two minutes.
MAX_CHARACTERS = 1_000_000

#: Seconds without a word from a worker. It says something every few seconds once it has begun.
TIMEOUT = 60.0


def _reject_token_ids(value: Any) -> Any:
    """Token numbers are of another model's vocabulary: they would be nonsense here."""
    inner = value[0] if isinstance(value, list) and value else value
    if isinstance(inner, int | list):
        raise PydanticCustomError(
            "invalid_value", "has token numbers, of which no model here knows the text; send text"
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
    """A vector: numbers, or as base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """Tokens: what is billed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """The answer of `POST /v1/embeddings`: a vector a text, in order."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


async def create(request: Request) -> DeferredResponse:
    """`POST /v1/embeddings`."""
    body = bodies.parse(request.body, CreateEmbeddings)
    _check(body, request.platform.settings)
    job_id = request.new_id("job")
    await run_in_threadpool(
        enqueue_embedding,
        request.platform.database,
        request.caller,
        body.input,
        body.dimensions,
        job_id,
        request.allowance,
    )
    request.platform.queue.nudge()
    return DeferredResponse(
        partial(_respond, request, job_id, body.encoding_format or "float"), partial(abandon_job, request, job_id)
    )


def embedding_list(made: EmbeddingResult, encoding: str) -> EmbeddingList:
    """The vectors in one of OpenAI's two encodings."""
    data: list[EmbeddingObject] = [
        {"object": "embedding", "index": index, "embedding": _encode(vector, encoding)}
        for index, vector in enumerate(made.vectors)
    ]
    usage: EmbeddingUsage = {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens}
    return {"object": "list", "data": data, "model": made.model, "usage": usage}


def _encode(vector: bytes, encoding: str) -> list[float] | str:
    return (
        b64encode(vector).decode()
        if encoding == "base64"
        else list(struct.unpack(f"<{len(vector) // NUMBER_BYTES}f", vector))
    )


def _check(body: CreateEmbeddings, settings: Settings) -> None:
    known = embedder_name(settings)
    if body.model not in (None, DEFAULT_MODEL, known):
        raise InvalidRequest(
            f"The model '{truncate(str(body.model))}' makes no embeddings here; '{known}' does.",
            param="model",
            code="model_not_found",
        )
    if (characters := _characters(body.input)) > MAX_CHARACTERS:
        message = f"The texts have {characters} characters together; {MAX_CHARACTERS} are allowed in one request."
        raise InvalidRequest(message, param="input", code="string_above_max_length")


def _characters(texts: Sequence[str]) -> int:
    return sum(len(text) for text in texts)


async def _respond(request: Request, job_id: str, encoding: str) -> Response:
    """The vectors, once they are made. Raises what became of a job that has none."""
    made = await take_result(request, job_id, TIMEOUT, embeddings.take_result, _to_error)
    if made is None:
        raise Unavailable("These embeddings have been read already.")
    # Megabytes of numbers are written in a thread: others wait on the event loop.
    return await run_in_threadpool(
        lambda: json_response(embedding_list(made, encoding), headers=job_headers(job_id))
    )


def _to_error(last: dict[str, Any]) -> RequestError | JobFailed | Unavailable:
    match last.get("type"), (last.get("error") or {}).get("code"):
        case None, _:
            return Unavailable("No worker had time for these embeddings.", retry_after=10)
        case "sangha:job.cancelled", _:
            return Conflict("The job of these embeddings was cancelled.", code="cancelled")
        case _, "context_length_exceeded" as code:
            return InvalidRequest(last["error"]["message"], param="input", code=code)
        case _, "unsupported_dimensions":
            return InvalidRequest(last["error"]["message"], param="dimensions", code="unsupported_value")
        case _:
            return JobFailed("The embeddings could not be made; it has been noted for the operators.")
