"""`/v1/models`: list the models for turns and embeddings."""

from contextlib import suppress
from typing import Literal, NotRequired, cast

from starlette.responses import Response
from typing_extensions import TypedDict

from models.agents import agents
from models.platform.errors import NotFound, Unavailable
from models.platform.texts import truncate
from models.serving.served_models import DEFAULT_ALIAS
from pipelines.agents.agent_turns import is_agent
from pipelines.agents.definitions import MODEL_PREFIX
from pipelines.inference.registry import embedder_name
from web.api.request import Request
from web.api.turns.model_serving import ModelServing, model_serving
from web.api.turns.serving import serving_now
from web.http.responses import json_response, page_object
from web.http.threads import run_in_thread

#: The owner of local models.
OWNER = "sangha"


class ModelObject(TypedDict):
    """A model that requests can name. `created` is in Unix seconds.

    A local model is owned by `sangha`, another one by its endpoint, and an agent by its account. Turns of an
    unavailable one wait until a worker serves it.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    status: Literal["available", "unavailable"]


class RetrievedModel(ModelObject):
    """A model with its work at the moment; an agent, and a model for embeddings, have none of their own."""

    sangha: NotRequired[ModelServing]


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: list the models that the account's plan includes, and the account's agents."""
    models, agent_models = await run_in_thread(_models, request), await run_in_thread(_agent_models, request)
    return json_response(page_object([*models.values(), *agent_models.values()]))


async def retrieve_model(request: Request) -> Response:
    """`GET /v1/models/{model}`: read a model or an agent."""
    name = request.path_params["model"]
    if not name:
        raise NotFound("There is no endpoint '/v1/models/'. The list of models is at '/v1/models'.")
    known = await run_in_thread(_agent_models if is_agent(name) else _models, request)
    if name not in known:
        raise NotFound(f"The model '{truncate(name)}' does not exist.", param="model", code="model_not_found")
    return json_response(await run_in_thread(_with_serving, request, known[name]))


def _with_serving(request: Request, known: ModelObject) -> RetrievedModel:
    """Add how much work the model has, unless Postgres is down."""
    with suppress(Unavailable):
        state = request.platform.serving.state()
        if model := state.models.find(known["id"]):
            return {**known, "sangha": model_serving(state, model)}
    return cast(RetrievedModel, known)


def _models(request: Request) -> dict[str, ModelObject]:
    limits, created = request.admission.limits, request.platform.started
    models, embedder = serving_now(request).models, embedder_name(request.platform.settings)
    named = [(model.id, model) for model in models if limits.allow(model.id)]
    if limits.allow(models.default.id):
        named.insert(1, (DEFAULT_ALIAS, models.default))
    objects = {
        name: _model_object(name, created, model.description.endpoint or OWNER, is_available=model.is_available)
        for name, model in named
    }
    return objects | ({embedder: _model_object(embedder, created, OWNER)} if limits.allow(embedder) else {})


def _agent_models(request: Request) -> dict[str, ModelObject]:
    account_id = request.caller.account_id
    with request.platform.database.connection() as connection:
        names = agents.names(connection, account_id)
    return {
        f"{MODEL_PREFIX}{name}": _model_object(f"{MODEL_PREFIX}{name}", int(created.timestamp()), account_id)
        for name, created in names.items()
    }


def _model_object(name: str, created: int, owner: str, *, is_available: bool = True) -> ModelObject:
    status: Literal["available", "unavailable"] = "available" if is_available else "unavailable"
    return {"id": name, "object": "model", "created": created, "owned_by": owner, "status": status}
