"""`POST /v1/embeddings`: embed texts.

A job of the memory pool embeds them, as the web process has no model. Its result is deleted once it is read; the job
of a disconnected client is cancelled.
"""

import struct
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import Conflict, InvalidRequest, JobFailed, NotFound, RequestError, Unavailable
from models.platform.settings import Settings
from models.platform.texts import truncate
from models.serving.served_models import DEFAULT_ALIAS
from models.turns import embeddings
from models.turns.embeddings import NUMBER_BYTES, EmbeddingResult
from pipelines.embeddings.enqueue_embedding import enqueue_embedding
from pipelines.inference.registry import embedder_name
from web.api.job_results import abandon_job, job_headers, take_result
from web.api.request import Request
from web.api.turns.request_body import read_body
from web.api.turns.turn_request import ClientLabel
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.http.validation import RequestBody

#: Texts per request, as in OpenAI's API.
MAX_TEXTS = 2048

#: Characters of all texts of a request: about 250,000 tokens of English, which take two minutes on a slow core.
MAX_CHARACTERS = 1_000_000

#: Seconds to wait for the job's next event. A running job writes one every few seconds.
TIMEOUT = 60.0


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


async def create(request: Request) -> DeferredResponse:
    """`POST /v1/embeddings`: embed one or more texts."""
    body = await read_body(request, CreateEmbeddings, requires_model=True)
    _check(body, request.platform.settings)
    request.allowance.limits.check_model(embedder_name(request.platform.settings))
    job_id = request.new_id("job")
    model = embedder_name(request.platform.settings)
    enqueue = partial(enqueue_embedding, request.platform.database, request.caller, model=model)
    await run_in_thread(enqueue, body.input, body.dimensions, job_id, request.allowance)
    request.platform.queue.nudge(request.caller.account_id)
    return DeferredResponse(
        partial(_respond, request, job_id, body.encoding_format or "float"), partial(abandon_job, request, job_id)
    )


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


def _check(body: CreateEmbeddings, settings: Settings) -> None:
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


async def _respond(request: Request, job_id: str, encoding: str) -> Response:
    """Wait for the job and respond with its vectors. Raises an error for a job that did not complete."""
    result = await take_result(request, job_id, TIMEOUT, embeddings.take_result, _to_error)
    if result is None:
        raise Unavailable("These embeddings were already returned to another request. Create them again.")
    # In a thread: serializing megabytes of numbers would block the event loop.
    return await run_in_thread(lambda: json_response(embedding_list(result, encoding), headers=job_headers(job_id)))


def _to_error(last: dict[str, Any]) -> RequestError | JobFailed | Unavailable:
    match last.get("type"), (last.get("error") or {}).get("code"):
        case None, _:
            return Unavailable(f"No worker embedded the texts within {TIMEOUT:g} seconds. Retry later.", retry_after=10)
        case "sangha:job.cancelled", _:
            return Conflict("The creation of these embeddings was cancelled.", code="cancelled")
        case _, "context_length_exceeded" as code:
            return InvalidRequest(last["error"]["message"], param="input", code=code)
        case _, "unsupported_dimensions":
            return InvalidRequest(last["error"]["message"], param="dimensions", code="unsupported_value")
        case _:
            return JobFailed(
                "The embeddings were not created because of an internal error, which was recorded for the operators."
            )
