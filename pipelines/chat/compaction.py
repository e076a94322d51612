"""Compactions: items that stand in prompts for the part of a conversation before them.

A compaction keeps some items whole, and has exact quotes of all others, selected without a language model: it invents
nothing, costs no tokens, and takes milliseconds. The client gets it as an opaque text and sends it back unchanged. It
is not secret: it only has texts of the conversation. It is not signed: a forged one says nothing that messages could
not.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from pipelines.chat.call_items import CALLS, output_text, tool_call
from pipelines.chat.key_quotes import Quote, select_quotes
from pipelines.chat.response_objects import CompactionItem, item_text
from pipelines.inference.engine import Engine, Message

#: What the opaque text of a compaction begins with: its format.
FORMAT = "sangha-1."

HEADER = "Earlier in this conversation. These are quotes of what is left out, the oldest first:"

#: Characters of a token, at first: if the quotes take more tokens than they may, fewer are selected.
TOKEN_LENGTH, SELECTIONS = 4, 4

ItemFields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compaction:
    """What stands for earlier items: quotes of most of them, and items that are kept whole, with roles and calls."""

    quotes: Sequence[Quote]
    kept: Sequence[ItemFields] = ()


def compaction_item(item_id: str, compaction: Compaction) -> CompactionItem:
    """Build the item of a compaction."""
    fields = {"quotes": [asdict(quote) for quote in compaction.quotes], "kept": [*map(_kept_fields, compaction.kept)]}
    encoded = base64.urlsafe_b64encode(orjson.dumps(fields)).decode()
    return {"id": item_id, "type": "compaction", "encrypted_content": FORMAT + encoded}


def read_compaction(content: str) -> Compaction:
    """Read the text of a compaction item. Raises ValueError for one that is not of this server."""
    if not content.startswith(FORMAT):
        raise ValueError("it is not of this server")
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(content.removeprefix(FORMAT)))
        return Compaction([*map(_quote, fields["quotes"])], [*map(_kept_item, fields["kept"])])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("it was changed or cut off") from error


def _quote(fields: Any) -> Quote:
    match fields:
        case {"speaker": str(speaker), "text": str(text)}:
            return Quote(speaker, text)
    raise TypeError


def _kept_fields(item: ItemFields) -> ItemFields:
    match item:
        case {"type": "message", "role": role}:
            return {"role": role, "name": item.get("name", ""), "text": item_text(item)}
        case {"type": type_} if type_ in CALLS:
            call = tool_call(item)
            return {"call": call.id, "id": item.get("id", ""), "name": call.name, "arguments": call.arguments}
        case _:
            return {"result_of": item["call_id"], "output": output_text(item)}


def _kept_item(fields: Any) -> ItemFields:
    match fields:
        case {"role": "user" | "assistant" | "system" | "developer" as role, "name": str(name), "text": str(text)}:
            named = {"name": name} if name else {}
            return {"type": "message", "role": role, "content": [{"text": text}], **named}
        case {"call": str(call_id), "id": str(id_), "name": str(name), "arguments": str(arguments)}:
            return {"type": "function_call", "id": id_, "call_id": call_id, "name": name, "arguments": arguments}
        case {"result_of": str(call_id), "output": str(output)}:
            return {"type": "function_call_output", "call_id": call_id, "output": output}
    raise TypeError


def expanded(items: Sequence[ItemFields]) -> list[ItemFields]:
    """Replace the last compaction, and all before it, by what it stands for."""
    quotes, present = split_at_compaction(items)
    if not quotes:
        return present
    quoted: ItemFields = {"type": "message", "role": "system", "content": [{"text": quotes_text(quotes)}]}
    first = next((index for index, item in enumerate(present) if not is_instruction(item)), len(present))
    return [*present[:first], quoted, *present[first:]]


def split_at_compaction(items: Sequence[ItemFields]) -> tuple[Sequence[Quote], list[ItemFields]]:
    """Return the quotes of the last compaction, and the items that it keeps with those that follow it."""
    last = max((index for index, item in enumerate(items) if item["type"] == "compaction"), default=None)
    if last is None:
        return [], list(items)
    compaction = read_compaction(items[last]["encrypted_content"])
    return compaction.quotes, [*compaction.kept, *items[last + 1 :]]


def is_instruction(item: ItemFields) -> bool:
    """Return whether an item is a message of the system or the developer."""
    return item["type"] == "message" and item["role"] in ("system", "developer")


def quotes_text(quotes: Sequence[Quote]) -> str:
    """Return the text of a prompt that has the quotes, one a line."""
    return "\n".join([HEADER, *(f"- {quote.speaker}: “{' '.join(quote.text.split())}”" for quote in quotes)])


def quotes_of(items: Sequence[ItemFields]) -> list[Quote]:
    """Return what items say. None of them is a compaction."""
    names = {item["call_id"]: tool_call(item).name for item in items if item["type"] in CALLS}
    return [quote for quote in (_quote_of(item, names) for item in items) if quote.text.strip()]


def _quote_of(item: ItemFields, names: Mapping[str, str]) -> Quote:
    if item["type"] == "message":
        return Quote(item["role"], item_text(item))
    if item["type"] in CALLS:
        call = tool_call(item)
        return Quote(f"call of {call.name}", call.arguments)
    return Quote(f"result of {names.get(item['call_id'], 'a call')}", output_text(item))


def select_within(
    engine: Engine, quotes: Sequence[Quote], max_tokens: int, check: Callable[[], None] = lambda: None
) -> list[Quote]:
    """Select the quotes that say most in so many tokens of the engine."""
    length = max_tokens * TOKEN_LENGTH
    for _ in range(SELECTIONS):
        selected = select_quotes(quotes, length, check)
        tokens = engine.count([Message("system", quotes_text(selected))]) if selected else 0
        if tokens <= max_tokens:
            return selected
        length = int(length * max_tokens / tokens * 0.95)
    return []
