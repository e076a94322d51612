"""The decisions on requests for approval that the input of a turn brings, as in OpenAI's API.

They are taken in the transaction that accepts the turn, so each is taken once. The call is made as the row of the
request has it; what the client sends back is compared with it. A client that keeps the conversation itself sends
earlier decisions again: those whose call is in the input, too, and denials are its history and take nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.accounts.accounts import Caller
from models.accounts.ownership import Access
from models.agents import approvals
from models.agents.approvals import Approval
from models.platform.database import Connection
from models.platform.errors import InvalidRequest
from models.platform.texts import truncate

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision to take. `param` is the place of its item in the input."""

    approval_id: str
    approve: bool
    text: str | None
    param: str


def unchanged_requests(connection: Connection, access: Access, items: Sequence[Item], param: str) -> Collection[str]:
    """Return the ids of the caller's requests for approval among items, which keep their ids.

    Raises InvalidRequest for one that was changed.
    """
    sent = {item["id"]: (number, item) for number, item in enumerate(items) if item["type"] == "mcp_approval_request"}
    rows = approvals.read_many(connection, sent, access) if sent else ()
    for row in rows:
        number, item = sent[row.id]
        if (item["server_label"], item["name"], item["arguments"]) != (row.server_label, row.tool_name, row.arguments):
            message = f"it differs from the request for approval '{row.id}'. Send it back unchanged."
            raise _invalid(f"{param}[{number}]", message, "approval_changed")
    return {row.id for row in rows}


def find_answers(
    connection: Connection,
    access: Access,
    items: Sequence[Item],
    *,
    thread: str | None,
    response_id: str,
    labels: Collection[str | None] | None = None,
) -> Sequence[Answer]:
    """Return the decisions to take of a turn's items.

    thread  that the turn continues; None where it begins one
    labels  of the servers whose tools the turn may call; None: its agent says

    Raises InvalidRequest, naming the item, for a decision on what is not the caller's, belongs to another conversation,
    was decided before, or can no longer be decided; and for the approval of a call that the turn could not make.
    """
    decisions = [(number, item) for number, item in enumerate(items) if item["type"] == "mcp_approval_response"]
    if not decisions:
        return ()
    rows = {row.id: row for row in approvals.read_many(connection, _ids(decisions), access)}
    answers: dict[str, Answer] = {}
    for number, item in decisions:
        param, approval_id = f"input[{number}]", item["approval_request_id"]
        row = _known(rows, approval_id, param)
        if row.answered_in != response_id and _is_history(row, item, items):
            continue
        if approval_id in answers:
            raise _invalid(param, f"'{truncate(approval_id)}' is decided twice.", "approval_decided")
        _check(row, items, thread, response_id, param)
        if item["approve"] and labels is not None and row.server_label not in labels:
            message = f"'tools' has no MCP server '{row.server_label}', which the approved call needs."
            raise _invalid(param, message, "approval_without_server")
        answers[approval_id] = Answer(approval_id, item["approve"], item.get("reason"), param)
    return [answers[approval_id] for approval_id in sorted(answers)]  # the order in which rows are locked


def take_answers(connection: Connection, caller: Caller, answers: Sequence[Answer], response_id: str) -> None:
    """Store the decisions in the transaction that accepts the turn.

    Raises InvalidRequest for one that another request has brought meanwhile.
    """
    for answer in answers:
        taken = approvals.take(
            connection,
            answer.approval_id,
            Access.own(caller),
            approve=answer.approve,
            user_id=caller.user_id,
            text=answer.text,
            answered_in=response_id,
        )
        if not taken:
            raise _decided(answer.param, answer.approval_id)


def _ids(decisions: Sequence[tuple[int, Item]]) -> list[str]:
    return [item["approval_request_id"] for _, item in decisions]


def _known(rows: Mapping[str, Approval], approval_id: str, param: str) -> Approval:
    if (row := rows.get(approval_id)) is None:
        message = f"request for approval with id '{truncate(approval_id)}' not found."
        raise _invalid(f"{param}.approval_request_id", message, "approval_not_found")
    return row


def _is_history(row: Approval, item: Item, items: Sequence[Item]) -> bool:
    """Return whether a decision is one that an earlier turn has brought, and that takes nothing."""
    if row.answered_in is None or item["approve"] != (row.status == "approved"):
        return False
    called = any(each.get("approval_request_id") == row.id for each in items if each["type"] == "mcp_call")
    return called or not item["approve"]


def _check(row: Approval, items: Sequence[Item], thread: str | None, response_id: str, param: str) -> None:
    """Raise InvalidRequest for an approval that the turn cannot decide."""
    if row.gate_job_id is not None:
        message = f"its turn waits for this decision: send it to POST /v1/approvals/{row.id}."
        raise _invalid(param, message, "approval_of_waiting_turn")
    if row.status == "expired":
        raise _invalid(param, f"the request for approval '{row.id}' has expired.", "approval_expired")
    if row.status != "pending" and row.answered_in != response_id:
        raise _decided(param, row.id)
    is_sent_back = any(item["type"] == "mcp_approval_request" and item["id"] == row.id for item in items)
    if row.approval_thread != thread and (thread is not None or not is_sent_back):
        message = (
            f"the request for approval '{row.id}' belongs to another conversation. Continue that one, or send back the "
            "request before this item, without a conversation."
        )
        raise _invalid(param, message, "approval_of_other_turn")


def _decided(param: str, approval_id: str) -> InvalidRequest:
    return _invalid(param, f"the request for approval '{approval_id}' has been decided.", "approval_decided")


def _invalid(param: str, message: str, code: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{param}': {message}", param=param, code=code)
