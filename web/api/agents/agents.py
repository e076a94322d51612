"""`/v1/agents`: create, list, read, change and delete agents."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from starlette.responses import Response

from models.agents import agents
from models.platform.errors import InvalidRequest, NotFound
from models.serving.served_models import DEFAULT_ALIAS
from pipelines.agents import manage_agents
from pipelines.agents.agent_turns import is_agent
from pipelines.chat.prompt import output_format_of
from pipelines.requests.mcp_tools import check_registered, sealed_credentials
from pipelines.requests.serving import Serving
from pipelines.requests.tools_and_formats import (
    ResolvedTools,
    check_calls,
    check_schemas,
    resolve_tools,
    schemas_of,
    text_parameters,
)
from web.api.agents.schemas import AgentDeleted, CreateAgent, DefinitionParameters, UpdateAgent, agent_object
from web.api.request import Request
from web.api.turns.conversion import convert
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import RequestQuery, parse_query
from web.http.responses import json_response
from web.http.threads import run_in_thread


class ReadAgent(RequestQuery):
    """The query of `GET /v1/agents/{id}`."""

    version: int | None = Field(None, ge=1)


class ListVersions(RequestQuery):
    """The query of `GET /v1/agents/{id}/versions`: versions below the number `after`, newest first."""

    after: int | None = Field(None, ge=1)
    limit: int = Field(20, ge=1, le=100)


async def create(request: Request) -> Response:
    """`POST /v1/agents`: create an agent, which requests name as the model `agent/NAME`."""
    body = bodies.parse(request.body, CreateAgent)
    definition = await convert(request, _definition, body)
    return json_response(agent_object(await run_in_thread(_create, request, body, definition)), 201)


def list_agents(request: Request) -> Response:
    """`GET /v1/agents`: list the agents of the account, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        records = agents.list_agents(connection, request.caller.account_id, after=query.after, limit=query.fetch_limit)
    return page_response(records, query.limit, agent_object)


def read(request: Request) -> Response:
    """`GET /v1/agents/{id}`: read an agent, or one of its versions."""
    query = parse_query(request.query, ReadAgent)
    agent = manage_agents.find(request.platform.database, request.caller, request.path_params["agent_id"])
    if query.version is None or query.version == agent.version:
        return json_response(agent_object(agent))
    with request.platform.database.connection() as connection:
        found = agents.list_versions(connection, agent.id, agent.account_id, before=query.version + 1, limit=1)
    if not found or found[0].version != query.version:
        raise NotFound(f"The agent has no version {query.version}; its newest is {agent.version}.", param="version")
    return json_response(agent_object(found[0]))


def list_versions(request: Request) -> Response:
    """`GET /v1/agents/{id}/versions`: list the versions of an agent, newest first."""
    query = parse_query(request.query, ListVersions)
    agent = manage_agents.find(request.platform.database, request.caller, request.path_params["agent_id"])
    before = agents.NEWEST if query.after is None else query.after
    with request.platform.database.connection() as connection:
        records = agents.list_versions(connection, agent.id, agent.account_id, before=before, limit=query.limit + 1)
    return page_response(records, query.limit, agent_object)


async def update(request: Request) -> Response:
    """`PATCH /v1/agents/{id}`: change an agent. Turns that run keep the version that they began with."""
    body = bodies.parse(request.body, UpdateAgent)
    definition = await convert(request, _definition, body)
    agent = await run_in_thread(_change, request, body, definition)
    return json_response(agent_object(agent))


def delete(request: Request) -> Response:
    """`DELETE /v1/agents/{id}`: delete an agent. Turns that run go on."""
    agent_id = request.path_params["agent_id"]
    manage_agents.delete(request.platform.database, request.caller, request.origin, agent_id)
    deleted: AgentDeleted = {"id": agent_id, "object": "agent.deleted", "deleted": True}
    return json_response(deleted)


def _check_registered(request: Request, definition: Mapping[str, Any]) -> None:
    platform, tools = request.platform, definition.get("tools") or []
    check_registered(platform.settings, platform.database, request.caller.account_id, tools)


def _create(request: Request, body: CreateAgent, definition: Mapping[str, Any]) -> agents.Agent:
    _check_registered(request, definition)
    return manage_agents.create(
        request.platform.database,
        request.caller,
        request.origin,
        request.new_id("agent"),
        body.name,
        definition,
        body.metadata or {},
    )


def _change(request: Request, body: UpdateAgent, definition: Mapping[str, Any]) -> agents.Agent:
    _check_registered(request, definition)
    return manage_agents.change(
        request.platform.database,
        request.caller,
        request.origin,
        request.path_params["agent_id"],
        name=body.name,
        definition=definition,
        metadata=body.metadata,
        expected_version=body.expected_version,
    )


def _definition(body: DefinitionParameters, serving: Serving) -> dict[str, Any]:
    """Return the stored form of the fields that a body has. Raises InvalidRequest, and NotFound for the model.

    Blocks while new JSON Schemas are compiled; see `web.api.turns.conversion`.
    """
    if body.residency == "local" and not _is_local(body, serving):
        message = "Unsupported value for 'residency': 'local'. This installation's model is served by another host."
        raise InvalidRequest(message, param="residency", code="unsupported_value")
    tools = _resolve_tools(body)
    stored = {
        **body.model_dump(exclude_none=True, include=set(PLAIN_FIELDS)),
        "model": _model(body, serving),
        "tools": tools.stored,
        "agents": [{"name": each} if isinstance(each, str) else each.model_dump() for each in body.agents or ()],
        "text": text_parameters(body.text) if body.text else None,
    }
    fields = {name: stored.get(name) for name in DefinitionParameters.model_fields if name in body.model_fields_set}
    if "tools" in fields:
        fields["mcp_credentials"] = sealed_credentials(serving.settings, body.tools or [], tools.stored)
    return fields


#: The fields of a definition that are stored as they are.
PLAIN_FIELDS = (
    "description", "instructions", "join", "memory", "limits", "approval", "residency", "max_output_tokens",
)  # fmt: skip


def _resolve_tools(body: DefinitionParameters) -> ResolvedTools:
    tools = resolve_tools(body.tools, None)
    check_schemas(schemas_of(tools, body.text))
    check_calls(tools, output_format_of({"tools": tools.stored}))
    return tools


def _is_local(body: DefinitionParameters, serving: Serving) -> bool:
    model = serving.models.find(body.model)
    return model is None or model.description.is_local


def _model(body: DefinitionParameters, serving: Serving) -> str | None:
    """Return the name of the model, or None for the one that is served when a turn begins."""
    if is_agent(body.model):
        raise InvalidRequest("'model' should be the name of a model, not of an agent.", param="model")
    return None if body.model in (None, DEFAULT_ALIAS) else serving.resolve(body.model)
