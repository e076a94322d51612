"""The record of an approval: a call that waits for a person's decision.

    pending ──► approved | denied       by POST /v1/approvals/{id}, or by the input of the next turn
            ──► expired | cancelled     nobody has decided in time; the turn has ended

Each change is one conditional statement, so only the first of several has an effect.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.accounts.ownership import Access, owned
from models.delivery import events
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

ApprovalReason = Literal["policy", "arguments", "tool_changed", "price", "in_doubt"]
ApprovalStatus = Literal["pending", "approved", "denied", "expired", "cancelled"]

#: Days for which the approvals of deleted responses are kept.
ORPHAN_DAYS = 1


@dataclass(frozen=True, slots=True)
class Approval:
    """A row of `approvals`.

    gate_job_id      the job that its turn waits for; None: the turn has ended, and the next one brings the decision
    reason           why the call needs a decision
    status           `expired` also for a row that nobody has marked yet
    decision_text    what the person who decided says to the model
    approval_thread  the thread of the turn
    tool_digest      of the tool's definition that the model has seen; empty: it has none
    answered_in      the response whose input had the decision
    """

    id: str
    account_id: str
    user_id: str | None
    response_id: str
    gate_job_id: str | None
    reason: ApprovalReason
    server_label: str
    tool_name: str
    arguments: str
    agent_name: str | None
    status: ApprovalStatus
    decided_by: str | None
    decision_text: str | None
    created_at: datetime
    decided_at: datetime | None
    expires_at: datetime
    approval_thread: str = ""
    tool_digest: str = ""
    answered_in: str | None = None


STATUS = "CASE WHEN status = 'pending' AND expires_at <= now() THEN 'expired' ELSE status END"

COLUMNS = f"{columns(Approval, 'approvals', omit=('status',))}, {STATUS} AS status"

ACCESSIBLE = owned("account_id", "user_id")

# A repeated attempt of the turn inserts the same rows.
INSERT = """
INSERT INTO approvals (id, account_id, user_id, response_id, gate_job_id, reason, server_label, tool_name, arguments,
                       agent_name, expires_at, approval_thread, tool_digest)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(response_id)s, %(gate_job_id)s, %(reason)s, %(server_label)s,
        %(tool_name)s, %(arguments)s, %(agent_name)s, %(expires_at)s, %(approval_thread)s, %(tool_digest)s)
ON CONFLICT (id) DO NOTHING
"""


def insert(connection: Connection, approval: Approval) -> None:
    """Insert a pending approval, with its event, in the transaction that ends the turn or lets it wait."""
    names = ("id", "account_id", "user_id", "response_id", "gate_job_id", "reason", "server_label", "tool_name",
             "arguments", "agent_name", "expires_at", "approval_thread", "tool_digest")  # fmt: skip
    connection.execute(INSERT, {name: getattr(approval, name) for name in names})
    data = {"id": approval.id, "response_id": approval.response_id}
    events.record(connection, approval.account_id, "approval.requested", data, key=approval.id)


READ = f"SELECT {COLUMNS} FROM approvals WHERE id = %(id)s AND {ACCESSIBLE}"


def read(connection: Connection, approval_id: str, access: Access) -> Approval | None:
    """Return the approval if the caller has access to it."""
    row = fetch_one(connection, READ, {"id": approval_id, **access.parameters})
    return Approval(**row) if row else None


READ_MANY = f"SELECT {COLUMNS} FROM approvals WHERE id = ANY(%(ids)s) AND {ACCESSIBLE} ORDER BY id"


def read_many(connection: Connection, ids: Collection[str], access: Access) -> Sequence[Approval]:
    """Return those of the approvals that the caller has access to."""
    return [Approval(**row) for row in fetch_all(connection, READ_MANY, {"ids": list(ids), **access.parameters})]


READ_FOR_RESPONSE = f"SELECT {COLUMNS} FROM approvals WHERE response_id = %(response_id)s ORDER BY id"


def read_for_response(connection: Connection, response_id: str) -> Sequence[Approval]:
    """Return the approvals that the calls of a turn need."""
    return [Approval(**row) for row in fetch_all(connection, READ_FOR_RESPONSE, {"response_id": response_id})]


LIST = f"""
SELECT {COLUMNS} FROM approvals
WHERE {ACCESSIBLE}
  AND (%(status)s::text IS NULL OR {STATUS} = %(status)s)
  AND (%(response_id)s::text IS NULL OR response_id = %(response_id)s)
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def page(
    connection: Connection,
    access: Access,
    *,
    status: ApprovalStatus | None = None,
    response_id: str | None = None,
    after: str | None = None,
    limit: int = 20,
) -> Sequence[Approval]:
    """Return at most `limit` approvals that the caller has access to, newest first, older than the approval `after`."""
    filters = {"status": status, "response_id": response_id, "after": after, "limit": limit}
    return [Approval(**row) for row in fetch_all(connection, LIST, {**access.parameters, **filters})]


# The statements of a decision lock the job first, as the end of a job does.
OPEN_GATE = """
UPDATE jobs SET state = 'queued', run_at = least(run_at, now())
WHERE id = %(gate_job_id)s AND account_id = %(account_id)s AND state = 'scheduled' AND cancel_requested_at IS NULL
"""

DECIDE = """
UPDATE approvals SET status = %(status)s, decided_by = %(user_id)s, decision_text = %(text)s, decided_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND status = 'pending' AND expires_at > now()
"""


def decide(connection: Connection, approval: Approval, *, approve: bool, user_id: str, text: str | None) -> bool:
    """Store a decision, and let the turn go on that waits for it, in the caller's transaction.

    Returns False if it was decided before, has expired, or the turn does not wait any more: undo the transaction then.
    Nudge the relay after the commit.
    """
    parameters = {
        "id": approval.id,
        "account_id": approval.account_id,
        "gate_job_id": approval.gate_job_id,
        "status": "approved" if approve else "denied",
        "user_id": user_id,
        "text": text,
    }
    opened = connection.execute(OPEN_GATE, parameters).rowcount == 1
    return opened and connection.execute(DECIDE, parameters).rowcount == 1


# A repeated request takes the same ones for the same response.
TAKE = f"""
UPDATE approvals SET status = %(status)s, decided_by = %(user_id)s, decision_text = %(text)s, decided_at = now(),
                     answered_in = %(answered_in)s
WHERE id = %(id)s AND {ACCESSIBLE} AND gate_job_id IS NULL
  AND (status = 'pending' AND expires_at > now() OR answered_in = %(answered_in)s)
RETURNING id
"""


def take(
    connection: Connection,
    approval_id: str,
    access: Access,
    *,
    approve: bool,
    user_id: str,
    text: str | None,
    answered_in: str,
) -> bool:
    """Store the decision that the input of a turn brings, in the transaction that accepts the turn.

    Returns False if another turn has brought it, or it has expired: undo the transaction then.
    """
    status = "approved" if approve else "denied"
    decision = {"id": approval_id, "status": status, "user_id": user_id, "text": text, "answered_in": answered_in}
    return fetch_one(connection, TAKE, {**access.parameters, **decision}) is not None


EXPIRE = """
UPDATE approvals SET status = 'expired', decided_at = expires_at
WHERE id = %(id)s AND account_id = %(account_id)s AND status = 'pending' AND expires_at <= now()
"""


def expire(connection: Connection, approval_id: str, account_id: str) -> None:
    """Mark an approval that nobody has decided in time."""
    connection.execute(EXPIRE, {"id": approval_id, "account_id": account_id})


CANCEL = """
UPDATE approvals SET status = CASE WHEN expires_at <= now() THEN 'expired' ELSE 'cancelled' END,
                     decided_at = least(expires_at, now())
WHERE response_id = %(response_id)s AND gate_job_id IS NOT NULL AND status = 'pending'
"""


def cancel_waiting(connection: Connection, response_id: str) -> None:
    """Mark the approvals that a turn waits for as cancelled, in the transaction that ends it."""
    connection.execute(CANCEL, {"response_id": response_id})


DELETE_OF_RESPONSE = "DELETE FROM approvals WHERE response_id = %(response_id)s AND account_id = %(account_id)s"


def delete_of_response(connection: Connection, response_id: str, account_id: str) -> None:
    """Delete the approvals of a response that its owner deletes."""
    connection.execute(DELETE_OF_RESPONSE, {"response_id": response_id, "account_id": account_id})


MARK_EXPIRED = """
WITH expired AS MATERIALIZED (
    SELECT id FROM approvals WHERE status = 'pending' AND expires_at <= now()
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE approvals SET status = 'expired', decided_at = expires_at FROM expired WHERE approvals.id = expired.id
"""

DELETE_ORPHANS = """
DELETE FROM approvals WHERE id IN (
    SELECT id FROM approvals
    WHERE status <> 'pending' AND decided_at < now() - make_interval(days => %(days)s)
      AND NOT EXISTS (SELECT FROM responses WHERE responses.id = approvals.response_id)
    LIMIT %(limit)s)
"""


def prune(connection: Connection, limit: int) -> int:
    """Mark expired approvals, and delete those of deleted responses. Returns how many rows were changed, at most."""
    marked = connection.execute(MARK_EXPIRED, {"limit": limit}).rowcount
    return max(marked, connection.execute(DELETE_ORPHANS, {"limit": limit, "days": ORPHAN_DAYS}).rowcount)
