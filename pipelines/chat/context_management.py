"""Compact the conversation of a turn whose request has `context_management`.

    prompt above the threshold → compaction, the first output item → prompt built from the compaction

The compaction keeps the turn's question whole, so later turns find the question in it, and nothing before it is read
again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.turns.responses import Response
from pipelines.chat.call_items import CALLS, OUTPUTS
from pipelines.chat.compaction import (
    Compaction,
    ItemFields,
    compacted,
    compaction_item,
    is_instruction,
    last_question,
    split_at_compaction,
)
from pipelines.chat.mcp_items import as_callers_calls
from pipelines.chat.prompt import compaction_threshold, messages_of, output_format_of
from pipelines.chat.response_types import CompactionItem
from pipelines.inference.context import count_if_it_may_fit
from pipelines.inference.engine import Engine

#: The share of the threshold above which the earlier calls of the last question are quoted, too.
KEPT_SHARE = 0.5


def compaction_of(engine: Engine, response: Response, items: Sequence[ItemFields]) -> CompactionItem | None:
    """Return the compaction that replaces these items in the prompt; None if they are below the request's threshold."""
    compaction = _compaction(engine, response.request, [*as_callers_calls(items)])
    return None if compaction is None else compaction_item(f"cmp_{response.id.removeprefix('resp_')}", compaction)


def _compaction(engine: Engine, request: Mapping[str, Any], items: Sequence[ItemFields]) -> Compaction | None:
    threshold = compaction_threshold(engine, request)
    if threshold is None or _tokens(engine, request, items) <= threshold:
        return None
    earlier, present = split_at_compaction(items)
    kept = _kept(present, lambda tail: _tokens(engine, request, tail) <= threshold * KEPT_SHARE)
    compaction = compacted(earlier, present, kept)
    # Without new quotes all items are kept: a compaction would shorten nothing.
    return compaction if len(compaction.quotes) > len(earlier) else None


def _tokens(engine: Engine, request: Mapping[str, Any], items: Sequence[ItemFields]) -> int:
    return count_if_it_may_fit(engine, messages_of(engine, request, items), output_format_of(request))


def _kept(items: Sequence[ItemFields], fits: Callable[[Sequence[ItemFields]], bool]) -> list[ItemFields]:
    """Return the instructions and the last question with all that follows it, or with its last calls."""
    rules = [item for item in items if is_instruction(item)]
    others = [item for item in items if not is_instruction(item)]
    last = last_question(others)
    tail = others[-1:] if last is None else others[last:]
    return [*rules, *(tail if not tail or fits(tail) else [tail[0], *_last_calls(tail[1:])])]


def _last_calls(items: Sequence[ItemFields]) -> Sequence[ItemFields]:
    """Return the last calls with their outputs."""
    start = len(items)
    while start and items[start - 1]["type"] in OUTPUTS:
        start -= 1
    while start and items[start - 1]["type"] in CALLS:
        start -= 1
    return items[start:]
