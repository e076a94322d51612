"""Find the server that a job of the tools pool is about."""

from collections.abc import Mapping
from typing import Any

from models.accounts.ownership import Access
from models.agents import mcp_servers
from models.jobs.attempt_context import Attempt
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.turns import responses
from models.turns.responses import Response
from pipelines.agents.servers import ServerReference, of_account, references

#: The error of a job whose server is none of the turn's any more: it was deleted, or changed.
NO_SERVER: Mapping[str, Any] = {"type": "refused", "message": "The server was removed since the turn began."}


def load_response(connection: Connection, attempt: Attempt) -> Response:
    """Return the response of the turn. Raises PermanentFailure if it has been deleted."""
    job = attempt.job
    response = responses.read(connection, job.arguments["response_id"], Access.account(job.account_id))
    if response is None:
        raise PermanentFailure("The response was deleted", code="deleted")
    return response


def server_of_turn(
    settings: Settings, connection: Connection, response: Response, label: str
) -> ServerReference | None:
    """Return the server with this label among those of a turn; None if it is none of them any more."""
    found = references(settings, connection, response, response.request.get("tools") or [])
    return next((server for server in found if server.label == label), None)


def server_of_job(settings: Settings, connection: Connection, attempt: Attempt) -> ServerReference | None:
    """Return the server that a job names: by its id in the account, or by its label in a turn."""
    arguments = attempt.job.arguments
    if (server_id := arguments.get("server_id")) is not None:
        server = mcp_servers.read(connection, server_id, attempt.job.account_id)
        return of_account(server, {}) if server is not None else None
    return server_of_turn(settings, connection, load_response(connection, attempt), arguments["server_label"])
