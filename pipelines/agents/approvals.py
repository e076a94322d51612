"""When a call needs a person's approval, and the approval that it then waits for."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from models.agents.approvals import Approval, ApprovalReason, insert, read_many
from models.jobs.jobs import NewJob
from models.platform.database import Connection
from models.turns.responses import Response
from pipelines.agents.definitions import Definition
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.servers import ServerReference
from pipelines.agents.turn_tools import Child

#: How long an approval can be given.
EXPIRES_AFTER = timedelta(days=1)


def policy_of(server: ServerReference | None, definition: Definition | None) -> Any:
    """Return when the calls of a server need an approval: as the agent says, otherwise as the server's tool does.

    A registered server's own policy holds in any case: any member may write an agent. Delegations need none unless the
    agent says so.
    """
    if definition is not None and definition.approval is not None:
        own = server.own_approval if server is not None else None
        return definition.approval if own is None else [definition.approval, own]
    return server.require_approval if server is not None else "never"


def approval_reason(policy: Any, tool: ListedTool, arguments: str) -> ApprovalReason | None:
    """Return why a call needs an approval, or None.

    policy     "always", "never", "not_read_only", or OpenAI's filters `{"always": …, "never": …}`, each with
               `tool_names` and `read_only`; or a list of these, each of which holds
    arguments  as the model wrote them; those that are not a JSON object always need one
    """
    if not _is_object(arguments):
        return "arguments"
    if tool.changed:
        return "tool_changed"
    return "policy" if _asks(policy, tool) else None


def _asks(policy: Any, tool: ListedTool) -> bool:
    if isinstance(policy, list):
        return any(_asks(each, tool) for each in policy)
    if isinstance(policy, Mapping):
        if _matches(policy.get("always"), tool):
            return True
        return not _matches(policy.get("never"), tool) if policy.get("never") else False
    if policy == "not_read_only":
        return not tool.read_only
    return bool(policy != "never")


def _matches(selection: Mapping[str, Any] | None, tool: ListedTool) -> bool:
    if selection is None:
        return False
    if selection.get("read_only") is not None and selection["read_only"] != tool.read_only:
        return False
    names = selection.get("tool_names")
    return names is None or tool.name in names


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments), dict)
    except ValueError:
        return False


def expiry() -> datetime:
    """Return when an approval that is requested now expires."""
    return datetime.now(UTC) + EXPIRES_AFTER


def gate(response: Response, item: Mapping[str, Any], wait: Mapping[str, Any]) -> Child:
    """Return the job that a turn waits for until a request for approval is decided, and the row of the approval."""
    approval = new_approval(response, item, wait)
    return Child(gate_job(approval), lambda connection: insert(connection, approval))


def taken_by(connection: Connection, response: Response) -> Sequence[Approval]:
    """Return the approvals of earlier turns that the input of a turn has decided."""
    ids = [item["approval_request_id"] for item in response.input if item["type"] == "mcp_approval_response"]
    return read_many(connection, ids, response.account_id) if ids else ()


def new_approval(response: Response, item: Mapping[str, Any], wait: Mapping[str, Any]) -> Approval:
    """Return the row for a request for approval.

    item  of the request
    wait  the payload of `sangha:approval.requested`
    """
    agent = wait.get("agent") or response.request.get("agent") or {}
    return Approval(
        id=item["id"],
        account_id=response.account_id,
        user_id=response.user_id,
        response_id=response.id,
        gate_job_id=wait["job_id"],
        reason=wait["reason"],
        server_label=item["server_label"],
        tool_name=item["name"],
        arguments=item["arguments"],
        agent_name=agent.get("name"),
        status="pending",
        decided_by=None,
        decision_text=None,
        created_at=datetime.now(UTC),
        decided_at=None,
        expires_at=datetime.fromtimestamp(wait["expires_at"], UTC),
    )


def gate_job(approval: Approval) -> NewJob:
    """Return the job that the turn waits for: due when the approval is decided or expires."""
    assert approval.gate_job_id is not None
    return NewJob(
        "approval.wait",
        approval.account_id,
        arguments={"approval_id": approval.id},
        id=approval.gate_job_id,
        run_at=approval.expires_at,
        unique_key=f"approval:{approval.id}",
    )
