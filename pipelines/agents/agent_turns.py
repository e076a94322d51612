"""Resolve the agent that a new turn names as its model, with what its limits mean for the turn's job."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from models.jobs.budgets import BudgetLimits
from models.platform.database import Connection
from models.platform.errors import NotFound
from models.platform.texts import truncate
from pipelines.agents import definitions
from pipelines.agents.definitions import MODEL_PREFIX, Definition


def is_agent(model: str | None) -> bool:
    """Return whether a request's model names an agent."""
    return bool(model) and str(model).startswith(MODEL_PREFIX)


def resolve_agent(
    connection: Connection, account_id: str, request: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Definition | None]:
    """Return the request with the current version of its agent, and that version. Costs nothing without an agent.

    Raises NotFound for an agent that the account does not have.
    """
    if not is_agent(request["model"]):
        return request, None
    name = request["model"].removeprefix(MODEL_PREFIX)
    agent = request.get("agent") or definitions.current_agent(connection, account_id, name)
    if agent is None:
        raise NotFound(
            f"The agent '{truncate(name)}' does not exist. `GET /v1/agents` lists those of the account.",
            param="model",
            code="model_not_found",
        )
    definition = definitions.read_definition(connection, account_id, agent)
    engine_model = definition.model or request["engine_model"]
    waits = {"approvals": request.get("approvals") or "wait"}
    return {**request, "agent": dict(agent), "engine_model": engine_model, **waits}, definition


def budget_of(definition: Definition) -> BudgetLimits:
    """Return the limits of the tree that a turn of an agent begins."""
    limits = definition.limits
    return BudgetLimits(tokens=limits.tokens, money=limits.money, calls=limits.children, depth=limits.depth)


def deadline_of(definition: Definition) -> datetime | None:
    """Return when a turn of an agent that begins now has to end."""
    seconds = definition.limits.seconds
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
