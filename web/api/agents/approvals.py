"""`/v1/approvals`: calls of tools that wait for a person's decision.

Members see those of their own turns, admins all of the account. An admin reads what another member's call is about only
where its turn waits: then the admin may decide it.
"""

from typing import Annotated, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.agents import approvals
from models.agents.approvals import Approval, ApprovalReason, ApprovalStatus
from pipelines.agents import approval_decisions
from pipelines.agents.approval_decisions import Decision
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.http import bodies
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.timestamps import to_unix


class ListApprovals(Listing):
    """The query of `GET /v1/approvals`."""

    status: ApprovalStatus | None = None
    response_id: Annotated[str, Field(max_length=128)] | None = None


class DecideApproval(RequestBody):
    """The body of `POST /v1/approvals/{id}`. The model reads the `text` of a denial."""

    approve: bool
    text: Annotated[str, Field(max_length=4_096)] | None = None


class ApprovalObject(TypedDict):
    """A request for approval. Times are in Unix seconds.

    `decided_in` says what decides it: `api`, this API, for which the turn waits; or `next_turn`, the input of the next
    turn. `arguments` are as the model wrote them; null in the list of an admin who cannot decide the call of another
    member.
    """

    id: str
    object: Literal["approval"]
    status: ApprovalStatus
    reason: ApprovalReason
    decided_in: Literal["api", "next_turn"]
    response_id: str
    user_id: str | None
    agent: str | None
    server_label: str
    name: str
    arguments: str | None
    decided_by: str | None
    text: str | None
    created_at: int
    decided_at: int | None
    expires_at: int


def list_approvals(request: Request) -> Response:
    """`GET /v1/approvals`: list the approvals of the caller's turns, newest first; for admins all of the account's."""
    query = parse_query(request.query, ListApprovals)
    with request.platform.database.connection() as connection:
        records = approvals.page(
            connection,
            Access.managed(request.caller),
            status=query.status,
            response_id=query.response_id,
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, lambda approval: _approval_object(request, approval))


def read(request: Request) -> Response:
    """`GET /v1/approvals/{id}`: read an approval."""
    found = approval_decisions.find(request.platform.database, request.caller, request.path_params["approval_id"])
    return json_response(_approval_object(request, found))


def decide(request: Request) -> Response:
    """`POST /v1/approvals/{id}`: approve or deny a call, once. Its turn goes on by itself, on the same stream."""
    body = bodies.parse(request.body, DecideApproval)
    platform, caller = request.platform, request.caller
    decision = Decision(body.approve, body.text)
    decided = approval_decisions.decide(
        platform.database, caller, request.path_params["approval_id"], decision, request.origin
    )
    platform.queue.nudge(caller.account_id)
    return json_response(_approval_object(request, decided))


def _approval_object(request: Request, approval: Approval) -> ApprovalObject:
    is_decided_here = approval.gate_job_id is not None
    may_read = is_decided_here or Access.own(request.caller).includes(approval.user_id)
    return {
        "id": approval.id,
        "object": "approval",
        "status": approval.status,
        "reason": approval.reason,
        "decided_in": "api" if is_decided_here else "next_turn",
        "response_id": approval.response_id,
        "user_id": approval.user_id,
        "agent": approval.agent_name,
        "server_label": approval.server_label,
        "name": approval.tool_name,
        "arguments": approval.arguments if may_read else None,
        "decided_by": approval.decided_by,
        "text": approval.decision_text,
        "created_at": int(approval.created_at.timestamp()),
        "decided_at": to_unix(approval.decided_at),
        "expires_at": int(approval.expires_at.timestamp()),
    }
