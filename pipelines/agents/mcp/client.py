"""List and call the tools of MCP servers for the jobs of this process."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.agents import credentials, egress, event_loop
from pipelines.agents.mcp import calling, listing
from pipelines.agents.mcp.connection import Connection, Target, operate
from pipelines.agents.mcp.outcomes import CallOutcome, CallState, ServerTools
from pipelines.agents.servers import ServerReference


def list_tools(
    settings: Settings, server: ServerReference, *, timeout: float, should_stop: Callable[[], bool]
) -> ServerTools:
    """Return the tools that a server lists. Raises ServerFault, and Stopped once `should_stop` says so."""
    target, policy = target_of(settings, server), egress.policy_of(settings)
    return event_loop.run(partial(operate, target, policy, listing.list_tools, timeout=timeout), should_stop)


def call_tool(
    settings: Settings,
    server: ServerReference,
    name: str,
    arguments: Mapping[str, Any],
    state: CallState,
    *,
    version: str | None,
    timeout: float,
    should_stop: Callable[[], bool],
) -> CallOutcome:
    """Call a tool, or follow the task of `state` that an earlier attempt's call has made.

    version  the revision that the server spoke when it listed its tools; None: ask it

    Raises ServerFault, and Stopped once `should_stop` says so.
    """

    async def operation(connection: Connection) -> CallOutcome:
        if state.task_id is not None:
            return await calling.follow_task(connection, state.task_id, state)
        return await calling.call_tool(connection, name, arguments, state)

    target, policy = replace(target_of(settings, server), version=version), egress.policy_of(settings)
    return event_loop.run(partial(operate, target, policy, operation, timeout=timeout), should_stop)


def target_of(settings: Settings, server: ServerReference) -> Target:
    """Return the address of a server, with the headers that it gets. Raises PermanentFailure."""
    if server.source != "operator":
        secret = credentials.unseal(settings, server.credentials)
        return Target(server.url or "", _headers(secret.headers, secret.authorization))
    for configured in settings.mcp_servers:
        if configured.name == server.name:
            return Target(configured.url, _headers({}, configured.authorization), configured.command or None)
    raise PermanentFailure(f"This worker's SANGHA_MCP_SERVERS does not name {server.name}.", code="not_found")


def _headers(headers: Mapping[str, str], authorization: str | None) -> Mapping[str, str]:
    """Return the headers with the token; one that names its scheme is sent as it is."""
    if authorization is None:
        return headers
    value = authorization if " " in authorization else f"Bearer {authorization}"
    return {**headers, "Authorization": value}
