"""Compact a conversation on request, for clients that keep it themselves.

The compaction keeps instructions and the latest user messages whole. Calls without an output follow it, since the
client may still send one.
"""

from collections.abc import Iterable, Sequence

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.turns.responses import TokenUsage
from pipelines.chat.call_items import CALLS, OUTPUTS
from pipelines.chat.compaction import (
    ItemFields,
    compacted,
    compaction_item,
    is_instruction,
    is_question,
    split_at_compaction,
)
from pipelines.chat.file_texts import FileTexts
from pipelines.chat.mcp_items import as_callers_calls
from pipelines.chat.prompt import thread_items
from pipelines.chat.prompt_jobs import hypothetical_turn
from pipelines.chat.response_objects import item_text, usage_object
from pipelines.inference.engine import Engine, Message

KIND = "context.compact"

#: The share of the context that the latest user messages may take.
MESSAGES_SHARE = 0.25


def run(engine: Engine, attempt: Attempt, file_texts: FileTexts | None = None) -> Ending:
    """Compact the items of a hypothetical turn. Raises the reason to stop."""
    response = hypothetical_turn(attempt)
    with attempt.database.connection() as connection:
        items = thread_items(connection, response)
    if file_texts is not None:
        items = list(file_texts.expand(attempt, items, len(response.input)))
    attempt.check()
    item_id = "cmp_" + attempt.job.id.partition("_")[2]
    output = compact(engine, items, item_id)
    # No model runs, so no tokens are billed.
    return plain_ending(attempt, "completed", result={"output": output, "usage": usage_object(TokenUsage(0, 0, 0))})


def compact(engine: Engine, items: Sequence[ItemFields], item_id: str) -> list[ItemFields]:
    """Return a compaction that replaces these items, and the calls without an output, which follow it."""
    earlier, present = split_at_compaction([*as_callers_calls(items)])
    open_calls = _open_calls(present)
    latest = {id(item) for item in _latest_user_messages(engine, present)}
    kept = [item for item in present if is_instruction(item) or id(item) in latest]
    return [compaction_item(item_id, compacted(earlier, present, kept, open_calls)), *open_calls]


def _latest_user_messages(engine: Engine, items: Sequence[ItemFields]) -> list[ItemFields]:
    """Return the latest user messages that fit, each whole."""
    left, latest = engine.context * MESSAGES_SHARE, list[ItemFields]()
    for item in reversed(items):
        if not is_question(item):
            continue
        message = [Message("user", item_text(item))]
        if engine.min_tokens(message) > left or (tokens := engine.count(message)) > left:
            break
        left -= tokens
        latest.append(item)
    return latest[::-1]


def _open_calls(items: Iterable[ItemFields]) -> list[ItemFields]:
    """Return the calls without an output, and the undecided requests: the client may still send an answer."""
    calls: dict[str, ItemFields] = {}
    for item in items:
        if item["type"] in CALLS:
            calls[item["call_id"]] = item
        elif item["type"] == "mcp_approval_request":
            calls[item["id"]] = item
        elif item["type"] in OUTPUTS:
            calls.pop(item["call_id"], None)
    return list(calls.values())
