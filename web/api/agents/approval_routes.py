"""The routes of approvals."""

from web.access.rights import Rights
from web.api.agents import approvals
from web.api.agents.approvals import ApprovalObject
from web.api.routing import Route
from web.http.responses import Page

APPROVAL_ROUTES = (
    Route("GET", "/v1/approvals", approvals.list_approvals, Rights.READ, query=approvals.ListApprovals,
          response=Page[ApprovalObject]),
    Route("GET", "/v1/approvals/{approval_id}", approvals.read, Rights.READ, response=ApprovalObject),
    Route("POST", "/v1/approvals/{approval_id}", approvals.decide, Rights.WRITE, body=approvals.DecideApproval,
          response=ApprovalObject),
)  # fmt: skip
