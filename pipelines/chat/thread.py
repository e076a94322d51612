"""Find the thread that a turn continues, and the items that its input refers to.

A thread is a conversation, or the chain of responses that a previous one belongs to; its turns run one at a time. The
busy policy is applied in the transaction that inserts the turn, while it holds the thread's lock: two turns that may
not wait can't both find the thread free.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from models.accounts.ownership import Access
from models.jobs.cancellation import Cancellation
from models.platform.database import Connection
from models.platform.errors import Conflict, InvalidRequest, NotFound
from models.platform.texts import truncate
from models.turns import conversations, responses
from pipelines.agents.approval_answers import unchanged_requests
from pipelines.chat.call_items import ID_PREFIXES
from pipelines.chat.cancellation import cancel_jobs

BusyPolicy = Literal["queue", "reject", "interrupt"]

#: Prefixes of item ids by type. Output items have the same prefixes; ids of input items have an `i` at the end.
ITEM_ID_PREFIXES = {
    "message": "msg", "reasoning": "rs", "compaction": "cmp", "mcp_call": "mcp", "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr", "mcp_approval_response": "mcpa", **ID_PREFIXES,
}  # fmt: skip

#: An item's id contains that of its response.
ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})")


def find_thread(
    connection: Connection, access: Access, conversation_id: str | None, previous_id: str | None
) -> str | None:
    """Find the thread that a turn continues, None where it begins one, and lock it for the caller's transaction.

    Raises NotFound for a conversation, and InvalidRequest for a response, that the caller doesn't have.
    """
    if conversation_id is not None:
        if not conversations.lock(connection, conversation_id, access):
            raise NotFound(f"Conversation with id '{truncate(conversation_id)}' not found.", param="conversation")
        return conversation_id
    if previous_id is None:
        return None
    thread = responses.lock_thread_of(connection, previous_id, access)
    if thread is None:
        raise InvalidRequest(
            f"Previous response with id '{truncate(previous_id)}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return thread


def apply_busy_policy(
    connection: Connection, account_id: str, thread: str | None, policy: BusyPolicy
) -> Cancellation | None:
    """Wait for a thread's unfinished turns, reject the new one, or cancel them, as the policy says.

    Raises Conflict to reject. Announce the returned cancellation after the commit.
    """
    if thread is None or policy == "queue":
        return None
    unfinished = responses.unfinished_jobs(connection, thread, account_id)
    if unfinished and policy == "reject":
        raise Conflict("An earlier turn of this conversation is unfinished.", param="if_busy", code="conversation_busy")
    return cancel_jobs(connection, unfinished, account_id) if unfinished else None


def resolve_items(
    connection: Connection, access: Access, response_id: str, items: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Resolve the references in a turn's input and give its items ids. Raises InvalidRequest.

    The caller's own requests for approval keep their ids, by which decisions name them.
    """
    id_suffix = response_id.partition("_")[2]
    resolved = resolve_references(connection, access, items, "input")
    kept = unchanged_requests(connection, access, resolved, "input")
    new_ids = (f"{ITEM_ID_PREFIXES[item['type']]}_{id_suffix}i{position}" for position, item in enumerate(resolved))
    return [
        {**item, "id": item["id"] if item.get("id") in kept else new_id}
        for item, new_id in zip(resolved, new_ids, strict=True)
    ]


def resolve_references(
    connection: Connection, access: Access, items: Sequence[Mapping[str, Any]], param: str
) -> list[Mapping[str, Any]]:
    """Replace each reference by the item that it refers to. Raises InvalidRequest."""
    referenced = _referenced_items(
        connection, access, [item["id"] for item in items if item["type"] == "item_reference"]
    )
    return [_resolve(item, referenced, f"{param}[{position}].id") for position, item in enumerate(items)]


def _referenced_items(connection: Connection, access: Access, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Find items by id, in conversations and, where the id names one, in responses."""
    if not ids:
        return {}
    items = {item["id"]: item for item in conversations.items(connection, ids, access)}
    matches = [ITEM_ID.match(item_id) for item_id in ids if item_id not in items]
    if response_ids := {f"resp_{match[1]}" for match in matches if match}:
        items |= {item["id"]: item for item in responses.read_items(connection, sorted(response_ids), access)}
    return items


def _resolve(item: Mapping[str, Any], referenced: Mapping[str, Mapping[str, Any]], param: str) -> Mapping[str, Any]:
    if item["type"] != "item_reference":
        return item
    if item["id"] not in referenced:
        raise InvalidRequest(f"Item with id '{truncate(item['id'])}' not found.", param=param, code="item_not_found")
    return referenced[item["id"]]
