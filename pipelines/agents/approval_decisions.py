"""Decide an approval that a turn waits for: once, by the person whose turn it is, or by an admin of the account."""

from dataclasses import dataclass

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.accounts.ownership import Access
from models.agents import approvals
from models.agents.approvals import Approval
from models.platform.database import Database
from models.platform.errors import Conflict, NotFound
from models.platform.texts import truncate


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decides. The model reads the text of a denial."""

    approve: bool
    text: str | None = None

    @property
    def status(self) -> str:
        """The status that the approval gets."""
        return "approved" if self.approve else "denied"

    def is_that_of(self, approval: Approval, caller: Caller) -> bool:
        """Return whether this person has decided the same before."""
        same = (approval.status, approval.decision_text) == (self.status, self.text)
        return same and approval.decided_by == caller.user_id


def decide(database: Database, caller: Caller, approval_id: str, decision: Decision, origin: RequestOrigin) -> Approval:
    """Store a decision, and let the turn go on. Nudge the relay after this. The same one again changes nothing.

    Raises NotFound, and Conflict if it was decided otherwise or by somebody else, or can no longer be decided.
    """
    approval = find(database, caller, approval_id)
    if approval.status != "pending" or not _store(database, caller, approval, decision, origin):
        approval = find(database, caller, approval_id)
        if not decision.is_that_of(approval, caller):
            raise _conflict(approval)
        return approval
    return find(database, caller, approval_id)


def find(database: Database, caller: Caller, approval_id: str) -> Approval:
    """Return an approval of the caller, for an admin of the account. Raises NotFound."""
    with database.connection() as connection:
        approval = approvals.read(connection, approval_id, Access.managed(caller))
    if approval is None:
        raise NotFound(f"Approval with id '{truncate(approval_id)}' not found.", param="approval_id")
    return approval


class _NotDecided(Exception):
    """Rolls the transaction back."""


def _store(database: Database, caller: Caller, approval: Approval, decision: Decision, origin: RequestOrigin) -> bool:
    """Return False if the approval was decided before, has expired, or its turn does not wait any more."""
    if approval.gate_job_id is None:
        return False
    details = {"tool": f"{approval.server_label}.{approval.tool_name}", "response_id": approval.response_id}
    try:
        with database.transaction() as connection:
            decided = approvals.decide(
                connection, approval, approve=decision.approve, user_id=caller.user_id, text=decision.text
            )
            if not decided:
                raise _NotDecided
            audit.record(
                connection,
                f"approval.{decision.status}",
                origin,
                account_id=caller.account_id,
                user_id=caller.user_id,
                target=approval.id,
                details=details,
            )
    except _NotDecided:
        return False
    return True


def _conflict(approval: Approval) -> Conflict:
    match approval.status:
        case "approved" | "denied":
            when = approval.decided_at.isoformat(timespec="seconds") if approval.decided_at else "an unknown time"
            message = f"This call was {approval.status} by '{approval.decided_by}' at {when}."
            return Conflict(message, code="approval_decided")
        case "expired":
            return Conflict("Nobody has decided in time: the approval has expired.", code="approval_expired")
        case "pending" if approval.gate_job_id is None:
            message = (
                "No turn waits for this decision: its response has ended. Send an 'mcp_approval_response' in the input "
                "of the next turn."
            )
            return Conflict(message, code="approval_of_next_turn")
        case _:
            return Conflict("The turn that asked has ended.", code="approval_cancelled")
