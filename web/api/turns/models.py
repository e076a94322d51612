"""`/v1/models`: list the models for turns and embeddings."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from models.agents import agents
from models.platform.errors import NotFound
from models.platform.texts import truncate
from pipelines.agents.agent_turns import is_agent
from pipelines.agents.definitions import MODEL_PREFIX
from pipelines.inference.registry import embedder_name, model_name
from web.api.request import Request
from web.http.responses import json_response, page_object
from web.http.threads import run_in_thread

#: An alias of the local models, for callers that do not know which are installed.
DEFAULT_MODEL = "default"


class ModelObject(TypedDict):
    """A model that requests can name. `created` is in Unix seconds."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: list the available models that the account's plan includes, and the account's agents."""
    names = [*_model_names(request), *await run_in_thread(_agent_models, request)]
    return json_response(page_object([_model_object(name, request.platform.started) for name in names]))


async def retrieve_model(request: Request) -> Response:
    """`GET /v1/models/{model}`: read a model."""
    name = request.path_params["model"]
    if not name:
        raise NotFound("There is no endpoint '/v1/models/'. The list of models is at '/v1/models'.")
    known = await run_in_thread(_agent_models, request) if is_agent(name) else _model_names(request)
    if name not in known:
        raise NotFound(f"The model '{truncate(name)}' does not exist.", param="model", code="model_not_found")
    return json_response(_model_object(name, request.platform.started))


def _model_names(request: Request) -> list[str]:
    settings, limits = request.platform.settings, request.admission.limits
    chat, embedder = model_name(settings), embedder_name(settings)
    names = [*([chat, DEFAULT_MODEL] if limits.allow(chat) else []), *([embedder] if limits.allow(embedder) else [])]
    return list(dict.fromkeys(names))


def _agent_models(request: Request) -> list[str]:
    with request.platform.database.connection() as connection:
        return [f"{MODEL_PREFIX}{name}" for name in agents.names(connection, request.caller.account_id)]


def _model_object(name: str, created: int) -> ModelObject:
    return {"id": name, "object": "model", "created": created, "owned_by": "sangha"}
