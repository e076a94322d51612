"""Where a turn goes on: in a conversation, or behind a response. And what it points at there.

Turns of one thread run one at a time. What a new one does about those before it is decided in the transaction that
inserts it, one post after another, so that two that are not willing to wait can't both find the thread free.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from models.jobs.cancellation import Cancellation
from models.platform.database import Connection
from models.platform.errors import Conflict, InvalidRequest, NotFound
from models.turns import conversations, responses
from pipelines.chat.cancellation import cancel_jobs

BusyPolicy = Literal["queue", "reject", "interrupt"]

#: Ids of items by type; what an engine makes has the same beginnings, and no `i`.
ITEM_ID_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}

#: An item's id begins with that of its response, but for the prefix.
OF_RESPONSE = re.compile(r"[a-z]+_([0-9a-f]{32})")

MAX_ECHO = 100


def find_thread(
    connection: Connection, account_id: str, conversation_id: str | None, previous_id: str | None
) -> str | None:
    """The thread that a turn goes on with, or None where it begins one; held till the caller's transaction ends.

    Raises NotFound for a conversation, and InvalidRequest for a response, that the account doesn't have.
    """
    if conversation_id is not None:
        if not conversations.lock(connection, conversation_id, account_id):
            raise NotFound(f"Conversation with id '{_cut(conversation_id)}' not found.", param="conversation")
        return conversation_id
    if previous_id is None:
        return None
    thread = responses.lock_thread_of(connection, previous_id, account_id)
    if thread is None:
        raise InvalidRequest(
            f"Previous response with id '{_cut(previous_id)}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return thread


def apply_busy_policy(
    connection: Connection, account_id: str, thread: str | None, if_busy: BusyPolicy
) -> Cancellation | None:
    """Do about a thread's unfinished turns what the caller wants: wait, give up, or stop them.

    Raises Conflict where the caller would rather give up. What was stopped is to be told after the commit.
    """
    if thread is None or if_busy == "queue":
        return None
    unfinished = responses.unfinished_jobs(connection, thread, account_id)
    if unfinished and if_busy == "reject":
        raise Conflict("An earlier turn of this conversation is unfinished.", param="if_busy", code="conversation_busy")
    return cancel_jobs(connection, unfinished, account_id) if unfinished else None


def resolve_items(
    connection: Connection, account_id: str, response_id: str, items: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The items of a turn, with ids of its own. Raises InvalidRequest."""
    begin = response_id.partition("_")[2]
    whole = resolve_references(connection, account_id, items, "input")
    return [{**item, "id": f"{ITEM_ID_PREFIXES[item['type']]}_{begin}i{place}"} for place, item in enumerate(whole)]


def resolve_references(
    connection: Connection, account_id: str, items: Sequence[Mapping[str, Any]], param: str
) -> list[Mapping[str, Any]]:
    """The items; in the place of a reference stands what it names. Raises InvalidRequest."""
    named = _named(connection, account_id, [item["id"] for item in items if item["type"] == "item_reference"])
    return [_follow(item, named, f"{param}[{place}].id") for place, item in enumerate(items)]


def _named(connection: Connection, account_id: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Items by id, from conversations and, by what the id says, from responses."""
    if not ids:
        return {}
    found = {item["id"]: item for item in conversations.items(connection, ids, account_id)}
    matches = [OF_RESPONSE.match(item_id) for item_id in ids if item_id not in found]
    if owners := {f"resp_{match[1]}" for match in matches if match}:
        found |= {item["id"]: item for item in responses.read_items(connection, sorted(owners), account_id)}
    return found


def _follow(item: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]], param: str) -> Mapping[str, Any]:
    if item["type"] != "item_reference":
        return item
    if item["id"] not in named:
        raise InvalidRequest(f"Item with id '{_cut(item['id'])}' not found.", param=param, code="item_not_found")
    return named[item["id"]]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ECHO else f"{text[:MAX_ECHO]}…"
