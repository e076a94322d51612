"""When a call needs a person's approval, and the approval that it then waits for."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from models.agents.approvals import Approval, ApprovalReason
from models.jobs.jobs import NewJob
from models.turns.responses import Response
from pipelines.agents.servers import ListedTool

#: How long an approval can be given.
EXPIRES_AFTER = timedelta(days=1)


def approval_reason(policy: Any, tool: ListedTool, arguments: str) -> ApprovalReason | None:
    """Return why a call needs an approval, or None.

    policy     "always", "never", "not_read_only", or OpenAI's filters `{"always": …, "never": …}`, each with
               `tool_names` and `read_only`
    arguments  as the model wrote them; those that are not a JSON object always need one
    """
    if not _is_object(arguments):
        return "arguments"
    if tool.changed:
        return "tool_changed"
    return "policy" if _asks(policy, tool) else None


def _asks(policy: Any, tool: ListedTool) -> bool:
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


def new_approval(
    response: Response, item: Mapping[str, Any], *, reason: ApprovalReason, expires_at: datetime,
    gate_job_id: str | None, agent_name: str | None,
) -> Approval:  # fmt: skip
    """Return the row for a request for approval."""
    return Approval(
        id=item["id"],
        account_id=response.account_id,
        user_id=response.user_id,
        response_id=response.id,
        gate_job_id=gate_job_id,
        reason=reason,
        server_label=item["server_label"],
        tool_name=item["name"],
        arguments=item["arguments"],
        agent_name=agent_name,
        status="pending",
        decided_by=None,
        decision_text=None,
        created_at=datetime.now(UTC),
        decided_at=None,
        expires_at=expires_at,
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
