"""Requests for approval of turns that no worker runs."""

import time
from dataclasses import replace
from typing import Any

from psycopg.types.json import Jsonb

from models.accounts.ownership import Access
from models.agents import approvals as stored
from models.agents.approvals import Approval
from models.jobs.jobs import enqueue
from models.platform.database import Database
from models.platform.ids import new_id
from models.turns import responses
from pipelines.agents import approvals

ARGUMENTS = '{"text": "x"}'


def request_approval(
    database: Database, account_id: str, response_id: str, *, waits: bool, expires_in: float = 3600, **wait: Any
) -> Approval:
    """Request an approval: the turn waits for it, or has ended with it."""
    item = {"id": new_id("mcpr"), "type": "mcp_approval_request", "server_label": "docs", "name": "send",
            "arguments": ARGUMENTS}  # fmt: skip
    expires_at = time.time() + expires_in
    wait = {"job_id": new_id("job") if waits else None, "reason": "policy", "expires_at": expires_at, **wait}
    with database.transaction() as connection:
        response = responses.read(connection, response_id, Access.account(account_id))
        assert response is not None
        if waits:
            child = approvals.gate(response, item, wait)
            enqueue(connection, replace(child.job, owner_id=response.user_id))
            child.record(connection)
        else:
            stored.insert(connection, approvals.new_approval(response, item, wait))
            connection.execute("UPDATE responses SET output = %s WHERE id = %s", (Jsonb([item]), response_id))
            connection.execute(
                "UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (response.job_id,)
            )
        approval = stored.read(connection, item["id"], Access.account(account_id))
    assert approval is not None
    return approval


def request_item(approval: Approval, **changes: str) -> dict[str, str]:
    """Return the item of a request, as a client sends it back."""
    item = {"type": "mcp_approval_request", "id": approval.id, "server_label": approval.server_label,
            "name": approval.tool_name, "arguments": approval.arguments}  # fmt: skip
    return {**item, **changes}


def answer_item(approval: Approval, *, approve: bool = True, reason: str | None = None) -> dict[str, Any]:
    """Return the item of a decision."""
    return {"type": "mcp_approval_response", "approval_request_id": approval.id, "approve": approve, "reason": reason}
