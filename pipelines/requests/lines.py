"""The requests of batches: the work that a line asks for, and the answer to it, as the endpoint has them over HTTP.

Three things differ. A line is background work, whatever its `service_tier`. Nobody reads its stream or continues from
its place in a conversation, so that such options are rejected. And its turn is only stored if it says so: the output
file has the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel

from models.accounts.accounts import Caller
from models.accounts.plans import Limits
from models.platform.database import Database
from models.platform.errors import InvalidRequest, JobFailed, RequestError, Unavailable
from models.serving.served_models import ServedModels
from models.turns.embeddings import EmbeddingResult
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.turn_space import with_space
from pipelines.inference.registry import embedder_name
from pipelines.requests.chat.completion_object import completion_object, turn_error
from pipelines.requests.chat.completion_request import CreateChatCompletion, chat_turns
from pipelines.requests.embeddings import CreateEmbeddings, check_embeddings, embedding_error, embedding_list
from pipelines.requests.errors import error_answer
from pipelines.requests.ignored_fields import validate_tolerantly
from pipelines.requests.mcp_tools import check_registered
from pipelines.requests.serving import Serving
from pipelines.requests.text_completions import CreateCompletion, text_completion, text_error, text_turns
from pipelines.requests.turn_request import CreateResponse, new_turn

#: An endpoint whose requests a batch may have.
LineEndpoint = Literal["/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
LINE_ENDPOINTS: Sequence[LineEndpoint] = get_args(LineEndpoint)

#: Options that a line cannot have, and why.
REJECTED_OPTIONS: Mapping[str, str] = {
    "stream": "Nobody reads the stream of a request in a batch",
    "background": "All requests of a batch run in the background",
    "conversation": "Requests of a batch run in any order, and so outside of conversations",
    "previous_response_id": "Requests of a batch run in any order, and so outside of conversations",
}

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LineContext:
    """For whom the lines of a batch are run, and with which models."""

    serving: Serving
    database: Database
    caller: Caller
    limits: Limits


@dataclass(frozen=True, slots=True)
class LineTurns:
    """The turns that a line asks for: one per choice."""

    turns: Sequence[NewTurn]


@dataclass(frozen=True, slots=True)
class LineTexts:
    """The texts that a line wants to have embedded, with `dimensions` numbers each; None: those of the model."""

    texts: Sequence[str]
    dimensions: int | None
    model: str


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """The answer to a line.

    status_code  that of the same request over HTTP
    failed       it belongs in the error file: an error, or a response that failed
    """

    status_code: int
    body: Mapping[str, Any]
    failed: bool = False


def line_turn(endpoint: LineEndpoint, body: dict[str, Any], context: LineContext) -> LineTurns | LineTexts:
    """Return the work that a line asks for. Raises RequestError as the endpoint does.

    Blocks while new JSON Schemas are compiled. What is found when the work is inserted is raised by `start_turns`, and
    `enqueue_embedding`: a model that the key or a residency excludes, an unknown agent, a spent quota.
    """
    serving, caller = context.serving, context.caller
    if endpoint == "/v1/embeddings":
        texts = _parsed(CreateEmbeddings, body)
        check_embeddings(texts, serving.settings)
        context.limits.check_model(embedder_name(serving.settings))
        return LineTexts(texts.input, texts.dimensions, embedder_name(serving.settings))
    turns = [with_space(_in_background(turn), caller, named_spaces=True) for turn in _turns(endpoint, body, serving)]
    check_registered(serving.settings, context.database, caller.account_id, turns[0].request.get("tools") or [])
    return LineTurns(turns)


def line_result(
    endpoint: LineEndpoint, body: dict[str, Any], responses: Sequence[Mapping[str, Any]], models: ServedModels
) -> LineAnswer:
    """Return the answer to a line whose turns have ended, from their response objects in the order of the choices."""
    errors = [error for response in responses if (error := _error_of(endpoint, response))]
    if endpoint == "/v1/responses":
        return LineAnswer(200, responses[0], failed=bool(errors))
    if errors:
        return line_error(errors[0])
    if endpoint == "/v1/completions":
        prefixes = _parsed(CreateCompletion, body).echoes
        return LineAnswer(200, text_completion(responses, prefixes, models))
    calls_functions = _parsed(CreateChatCompletion, body).calls_functions
    return LineAnswer(200, completion_object(responses, models, calls_functions=calls_functions))


def line_embeddings(body: dict[str, Any], result: EmbeddingResult) -> LineAnswer:
    """Return the answer to a line whose texts were embedded."""
    encoding = _parsed(CreateEmbeddings, body).encoding_format or "float"
    return LineAnswer(200, embedding_list(result, encoding))


def line_embedding_error(error: Mapping[str, Any] | None) -> LineAnswer:
    """Return the answer to a line whose embedding job has failed with this error."""
    return line_error(embedding_error(error or {}))


def line_error(error: RequestError | JobFailed | Unavailable) -> LineAnswer:
    """Return the answer to a line that was rejected or has failed."""
    answer = error_answer(error)
    return LineAnswer(answer.status, answer.body, failed=True)


def _turns(endpoint: LineEndpoint, body: dict[str, Any], serving: Serving) -> Sequence[NewTurn]:
    match endpoint:
        case "/v1/chat/completions":
            chat = _parsed(CreateChatCompletion, body)
            return chat_turns(chat, serving)
        case "/v1/completions":
            return text_turns(_parsed(CreateCompletion, body), serving)
    response = _parsed(CreateResponse, body)
    return [new_turn(response.model_copy(update={"store": response.store is True}), serving)]


def _in_background(turn: NewTurn) -> NewTurn:
    """Return the turn as background work."""
    return replace(turn, request={**turn.request, "service_tier": "flex"})


def _parsed(model: type[Body], body: dict[str, Any]) -> Body:
    """Parse a body, without its unknown fields. Raises InvalidRequest."""
    parsed, _ = validate_tolerantly(model, body)
    for name, reason in REJECTED_OPTIONS.items():
        if getattr(parsed, name, None):
            message = f"Unsupported parameter: '{name}'. {reason}."
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
    return parsed


def _error_of(endpoint: LineEndpoint, response: Mapping[str, Any]) -> RequestError | JobFailed | None:
    return text_error(response) if endpoint == "/v1/completions" else turn_error(response)
