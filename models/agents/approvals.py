"""The record of an approval: a call that waits for a person's decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.platform.database import Connection, fetch_all
from models.platform.records import columns

ApprovalReason = Literal["policy", "arguments", "tool_changed", "price", "in_doubt"]
ApprovalStatus = Literal["pending", "approved", "denied", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class Approval:
    """A row of `approvals`.

    gate_job_id    the job that its turn waits for; None: the turn has ended, and the next one brings the decision
    reason         why the call needs a decision
    decision_text  what the person who decided says to the model
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


COLUMNS = columns(Approval, "approvals")

# A repeated attempt of the turn inserts the same rows.
INSERT = """
INSERT INTO approvals (id, account_id, user_id, response_id, gate_job_id, reason, server_label, tool_name, arguments,
                       agent_name, expires_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(response_id)s, %(gate_job_id)s, %(reason)s, %(server_label)s,
        %(tool_name)s, %(arguments)s, %(agent_name)s, %(expires_at)s)
ON CONFLICT (id) DO NOTHING
"""


def insert(connection: Connection, approval: Approval) -> None:
    """Insert a pending approval in the transaction that ends the turn, or lets it wait."""
    names = ("id", "account_id", "user_id", "response_id", "gate_job_id", "reason", "server_label", "tool_name",
             "arguments", "agent_name", "expires_at")  # fmt: skip
    connection.execute(INSERT, {name: getattr(approval, name) for name in names})


READ_FOR_RESPONSE = f"SELECT {COLUMNS} FROM approvals WHERE response_id = %(response_id)s ORDER BY id"


def read_for_response(connection: Connection, response_id: str) -> Sequence[Approval]:
    """Return the approvals that the calls of a turn need."""
    return [Approval(**row) for row in fetch_all(connection, READ_FOR_RESPONSE, {"response_id": response_id})]


READ_MANY = f"SELECT {COLUMNS} FROM approvals WHERE id = ANY(%(ids)s) AND account_id = %(account_id)s ORDER BY id"


def read_many(connection: Connection, ids: Sequence[str], account_id: str) -> Sequence[Approval]:
    """Return those of the approvals that the account has."""
    return [Approval(**row) for row in fetch_all(connection, READ_MANY, {"ids": list(ids), "account_id": account_id})]
