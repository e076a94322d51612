"""The request of a turn with what its agent adds: the version that the turn began with, or that has taken it over."""

from collections.abc import Mapping
from typing import Any

from models.platform.database import Connection
from models.turns.responses import Response
from pipelines.agents import definitions


def effective_request(
    connection: Connection, response: Response, agent: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Return the parameters of a turn and of its agent. Costs a statement for a turn with an agent only.

    agent  the agent that has taken over the turn; None: the one that was asked
    """
    reference = agent or response.request.get("agent")
    if reference is None:
        return response.request
    return definitions.apply(definitions.read_definition(connection, response.account_id, reference), response.request)
