"""Resolve the agent that a new turn names as its model, with what its limits mean for the turn's job."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from models.jobs.budgets import BudgetLimits
from models.platform.database import Connection
from models.platform.errors import NotFound
from models.platform.texts import truncate
from models.serving.served_models import ServedModel, ServedModels
from pipelines.agents import definitions
from pipelines.agents.definitions import MODEL_PREFIX, Definition
from pipelines.inference.model_parameters import check_honoured


def is_agent(model: str | None) -> bool:
    """Return whether a request's model names an agent."""
    return bool(model) and str(model).startswith(MODEL_PREFIX)


def resolve_agent(
    connection: Connection, account_id: str, request: Mapping[str, Any], models: ServedModels | None = None
) -> tuple[Mapping[str, Any], Definition | None]:
    """Return the request with the current version of its agent, and that version. Costs nothing without an agent.

    A request that names no model, nor does its agent, gets the default one, which may have changed since it was read.

    models  the known models; None: only the `engine_model` of the request

    Raises NotFound for an agent that the account does not have, and for one whose model is not known any more, and
    InvalidRequest for a parameter that its model does not honour.
    """
    if not is_agent(request.get("model")):
        return ({**request, "model": models.default.id} if models and request.get("any_model") else request), None
    agent = request.get("agent") or _current_agent(connection, account_id, request["model"])
    definition = definitions.read_definition(connection, account_id, agent)
    resolved = {**request, "agent": dict(agent), "approvals": request.get("approvals") or "wait"}
    if definition.model not in (None, request["engine_model"]) and models is None:
        raise _not_served(definition.model, agent, request["engine_model"])
    if definition.model is not None:
        resolved.pop("any_model", None)
    if models is not None:
        model = (
            models.default if resolved.get("any_model") else models.find(definition.model or request["engine_model"])
        )
        if model is None:
            raise _not_served(definition.model, agent, request["engine_model"])
        check_honoured(resolved, model.description)
        resolved |= {"engine_model": model.id}
        if "sampling_defaults" in resolved:
            resolved["sampling_defaults"] = dict(model.description.sampling_defaults)
    return resolved, definition


def _not_served(model: str | None, agent: Mapping[str, Any], served: str) -> NotFound:
    return _not_found(f"The model '{model}' of the agent '{agent['name']}' is no longer served; '{served}' is.")


def served_by(models: ServedModels | None, request: Mapping[str, Any]) -> ServedModel | None:
    """Return the model that answers a request; None if the models are not known, or this one is not."""
    if models is None:
        return None
    return models.default if request.get("any_model") else models.find(engine_model(request))


def check_agent(connection: Connection, account_id: str, model: str) -> None:
    """Raise NotFound if the model is an agent that the account does not have."""
    if is_agent(model):
        _current_agent(connection, account_id, model)


def with_agent(
    connection: Connection, account_id: str, request: Mapping[str, Any], models: ServedModels | None = None
) -> Mapping[str, Any]:
    """Return the request with what its agent adds, for work about a prompt that is not answered. Raises NotFound.

    It has no credentials: no server is asked for its tools.
    """
    resolved, definition = resolve_agent(connection, account_id, request, models)
    effective = definitions.apply(definition, resolved) if definition else request
    return {name: value for name, value in effective.items() if name != "mcp_credentials"}


def engine_model(request: Mapping[str, Any]) -> str:
    """Return the engine's model of a request, also where it names an agent."""
    return str(request.get("engine_model") or request["model"])


def _current_agent(connection: Connection, account_id: str, model: str) -> Mapping[str, Any]:
    name = model.removeprefix(MODEL_PREFIX)
    if (agent := definitions.current_agent(connection, account_id, name)) is None:
        raise _not_found(f"The agent '{truncate(name)}' does not exist. GET /v1/agents lists those of the account.")
    return agent


def _not_found(message: str) -> NotFound:
    return NotFound(message, param="model", code="model_not_found")


def budget_of(definition: Definition) -> BudgetLimits:
    """Return the limits of the tree that a turn of an agent begins."""
    limits = definition.limits
    return BudgetLimits(tokens=limits.tokens, money=limits.money, calls=limits.children, depth=limits.depth)


def deadline_of(definition: Definition) -> datetime | None:
    """Return when a turn of an agent that begins now has to end."""
    seconds = definition.limits.seconds
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
