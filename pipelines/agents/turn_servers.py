"""Find the server that a job of the tools pool is about."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.agents import mcp_servers
from models.jobs.attempt_context import Attempt
from models.platform.database import Connection
from models.platform.settings import Settings
from models.turns import responses
from models.turns.responses import Response
from pipelines.agents.effective_request import effective_request
from pipelines.agents.servers import ServerReference, of_account, references

#: The error of a job whose server is none of the turn's any more: it was deleted, or changed.
NO_SERVER = "The server was removed since the turn began."


def server_of_turn(
    settings: Settings,
    connection: Connection,
    response: Response,
    label: str,
    agent: Mapping[str, Any] | None = None,
) -> ServerReference | None:
    """Return the server with this label among those of a turn, and of its agent; None if it is none of them any more.

    agent  the agent that has taken over the turn; None: the one that was asked
    """
    request = effective_request(connection, response, agent)
    effective = replace(response, request=dict(request))
    found = references(settings, connection, effective, request.get("tools") or [])
    return next((server for server in found if server.label == label), None)


def server_of_job(settings: Settings, connection: Connection, attempt: Attempt) -> ServerReference | None:
    """Return the server that a job names: by its id in the account, or by its label in a turn."""
    arguments = attempt.job.arguments
    if (server_id := arguments.get("server_id")) is not None:
        server = mcp_servers.read(connection, server_id, attempt.job.account_id)
        return of_account(server, {}) if server is not None else None
    response = responses.read_of_job(connection, attempt.job)
    return server_of_turn(settings, connection, response, arguments["server_label"], arguments.get("agent"))
