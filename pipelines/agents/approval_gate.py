"""The pipeline of `approval.wait`: the gate that a call waits behind until a person has decided, or nobody has in time.

The job is scheduled for the time at which the approval expires. A decision makes it due.
"""

from datetime import UTC, datetime

from models.accounts.ownership import Access
from models.agents import approvals
from models.jobs.attempt_context import Attempt, Outcome, plain_ending
from models.platform.errors import PermanentFailure, Released


def run(attempt: Attempt) -> Outcome:
    """Return the decision on an approval: its status, and the person's text.

    Raises Released if it is early, and PermanentFailure if the approval was deleted.
    """
    approval_id, account_id = attempt.job.arguments["approval_id"], attempt.job.account_id
    with attempt.database.connection() as connection:
        # A statement of its own: a decision locks the job first, and the end of this job must not hold the row.
        approvals.expire(connection, approval_id, account_id)
        approval = approvals.read(connection, approval_id, Access.account(account_id))
    if approval is None:
        raise PermanentFailure("The approval was deleted.", code="deleted")
    if approval.status == "pending":
        delay = max(0.0, (approval.expires_at - datetime.now(UTC)).total_seconds())
        raise Released("The approval is neither decided nor expired.", delay=delay)
    return plain_ending(attempt, "completed", result={"status": approval.status, "text": approval.decision_text})
