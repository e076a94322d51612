"""The lists of tools that servers have answered, as they are cached for the turns of an account."""

from collections.abc import Sequence

from models.jobs.attempt_context import Attempt, Outcome
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents.servers import ListedTool, ServerReference


def read(connection: Connection, account_id: str, server: ServerReference) -> Sequence[ListedTool] | None:
    """Return the tools that a server offers, as far as `allowed_tools` allows them. None: `tool.list` has to ask it."""
    return server.tools


def list_job(response: Response, server: ServerReference) -> NewJob:
    """Return the job that asks a server for its tools: a child of the turn."""
    return NewJob(
        "tool.list",
        response.account_id,
        arguments={"response_id": response.id, "server_label": server.label},
        unique_key=f"tool_list:{response.id}:{server.label}",
    )


def run(settings: Settings, attempt: Attempt) -> Outcome:
    """Ask a server for its tools, and cache them."""
    raise PermanentFailure(f"No client can list the tools of {attempt.job.arguments['server_label']}.")
