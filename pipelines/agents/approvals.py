"""When a call needs a person's approval, and the approval that it then waits for."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from models.accounts.ownership import Access
from models.agents.approvals import Approval, ApprovalReason, insert, read_many
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.accounts.email_jobs import approval_email
from pipelines.agents.definitions import Definition
from pipelines.agents.listed_tool import ListedTool
from pipelines.agents.servers import ServerReference
from pipelines.agents.turn_tools import Child


def policy_of(server: ServerReference | None, definition: Definition | None) -> Any:
    """Return when the calls of a server need an approval: as the agent says, otherwise as the server's tool does.

    A registered server's own policy holds in any case: any member may write an agent. Delegations need none unless the
    agent says so.
    """
    if definition is not None and definition.approval is not None:
        own = server.own_approval if server is not None else None
        return definition.approval if own is None else [definition.approval, own]
    return server.require_approval if server is not None else "never"


def expires_after(settings: Settings, definition: Definition | None) -> timedelta:
    """Return how long approvals can be given: as the setting says, or less if the agent says so."""
    most = timedelta(hours=settings.approval_hours)
    policy = definition.approval if definition is not None else None
    seconds = policy.get("expires_after") if isinstance(policy, Mapping) else None
    return min(most, timedelta(seconds=seconds)) if seconds else most


def approval_reason(policy: Any, tool: ListedTool, arguments: str, label: str = "") -> ApprovalReason | None:
    """Return why a call needs an approval, or None.

    policy     "always", "never", "not_read_only"; or an object, of which all is optional: `always` and `never`, each
               with `tool_names` (`NAME` or `LABEL.NAME`) and `read_only`, as in OpenAI's API; `default` for all other
               tools; `costs` of a call by name, in the account's currency, and `above`, the price that needs none; or
               a list of policies, each of which holds
    arguments  as the model wrote them; those that are not a JSON object always need one
    """
    if not _is_object(arguments):
        return "arguments"
    if tool.changed:
        return "tool_changed"
    names = {tool.name, f"{label}.{tool.name}"}
    policies = [*_flat(policy)]
    if any(_asks(each, tool, names) for each in policies):
        return "policy"
    return "price" if any(_is_expensive(each, names) for each in policies) else None


def _flat(policy: Any) -> Iterator[Any]:
    """Yield the policies of a list, in which a server's may be a list itself."""
    if isinstance(policy, list):
        for each in policy:
            yield from _flat(each)
    else:
        yield policy


def _asks(policy: Any, tool: ListedTool, names: set[str]) -> bool:
    if isinstance(policy, Mapping):
        if _matches(policy.get("always"), tool, names):
            return True
        return not _matches(policy.get("never"), tool, names) and _asks(_default(policy), tool, names)
    if policy == "not_read_only":
        return not tool.read_only
    return bool(policy != "never")


def _default(policy: Mapping[str, Any]) -> str:
    """Return the policy for tools that no filter matches: filters of one kind are exceptions from the other."""
    if policy.get("default") is not None:
        return str(policy["default"])
    only_always = policy.get("always") is not None and policy.get("never") is None
    return "never" if only_always or policy.get("above") is not None else "always"


def _matches(selection: Mapping[str, Any] | None, tool: ListedTool, names: set[str]) -> bool:
    if selection is None:
        return False
    if selection.get("read_only") is not None and selection["read_only"] != tool.read_only:
        return False
    selected = selection.get("tool_names")
    return selected is None or not names.isdisjoint(selected)


def _is_expensive(policy: Any, names: set[str]) -> bool:
    if not isinstance(policy, Mapping) or policy.get("above") is None:
        return False
    costs = policy.get("costs") or {}
    return any(Decimal(str(costs[name])) > Decimal(str(policy["above"])) for name in names if name in costs)


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments), dict)
    except ValueError:
        return False


def expiry(after: timedelta) -> datetime:
    """Return when an approval that is requested now expires."""
    return datetime.now(UTC) + after


def gate(response: Response, item: Mapping[str, Any], wait: Mapping[str, Any]) -> Child:
    """Return the job that a turn waits for until a request for approval is decided, and what is stored with it: the row
    of the approval, and an e-mail to the person whose turn it is.
    """
    approval = new_approval(response, item, wait)

    def record(connection: Connection) -> None:
        insert(connection, approval)
        if approval.user_id is not None:
            enqueue(connection, approval_email(approval.id, approval.account_id, approval.user_id))

    return Child(gate_job(approval), record)


def taken_by(connection: Connection, response: Response) -> Sequence[Approval]:
    """Return the approvals of earlier turns that this turn's input has decided; not those in a history sent back."""
    ids = [item["approval_request_id"] for item in response.input if item["type"] == "mcp_approval_response"]
    rows = read_many(connection, ids, Access.account(response.account_id)) if ids else ()
    return [approval for approval in rows if approval.answered_in == response.id]


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
        approval_thread=response.thread,
        tool_digest=wait.get("tool_digest") or "",
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
