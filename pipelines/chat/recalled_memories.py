"""The memories in a turn's prompt, as they are stored and as their owner sees them.

The response and its events name them by id. Their texts are read from the memories at each use, so that no copy of
them is shown to others or outlives a deletion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.memory import memories
from models.memory.memories import Memory
from models.memory.spaces import SpaceKey
from models.platform.database import Connection
from models.turns.responses import Response
from pipelines.memory.quotes import cut_quote

#: Characters of a quoted text.
MAX_QUOTE = 400

#: The first schema version that reads events without texts.
SINCE = "0019"

#: Recalled memories, the best first: id, kind, score; of a long memory also `start`, the first quoted character; with a
#: text also speaker, occurred_at, text.
RecalledMemories = Sequence[Mapping[str, Any]]


def references(recalled: RecalledMemories) -> RecalledMemories:
    """Return recalled memories without what only their owner may see."""
    names = ("id", "kind", "score", "start")
    return [{name: memory[name] for name in names if name in memory} for memory in recalled]


def described(memory: Memory | None, start: int = 0) -> Mapping[str, Any]:
    """Return what the owner of a recalled memory sees of it; of a deleted one nothing. The quote begins at `start`."""
    if memory is None or not memory.text:
        return {"speaker": None, "occurred_at": None, "text": None}
    return {
        "speaker": memory.speaker,
        "occurred_at": (memory.valid_from or memory.occurred_at).isoformat(),
        "text": cut_quote(memory.text[start:] or memory.text, MAX_QUOTE),
    }


def with_texts(connection: Connection, recalled: RecalledMemories, key: SpaceKey) -> RecalledMemories:
    """Return recalled memories as their owner sees them, with the present texts of those in the turn's space."""
    rows = memories.read_many(connection, [memory["id"] for memory in recalled], key)
    by_id = {row.id: row for row in rows}
    return [
        {**reference, **described(by_id.get(reference["id"]), reference.get("start", 0))}
        for reference in references(recalled)
    ]


def response_with_texts(connection: Connection, response: Response) -> Response:
    """Return a response for its owner. Costs a statement if memories were recalled for it."""
    key = SpaceKey.of_turn(response)
    if not response.recalled or key is None:
        return replace(response, recalled=references(response.recalled))
    recalled = with_texts(connection, response.recalled, key)
    return replace(response, recalled=recalled)


def recalled_before(connection: Connection, response: Response, journalled: RecalledMemories) -> RecalledMemories:
    """Return the memories that an earlier attempt has recalled, with texts; those that were deleted since are left out.

    An earlier version has journalled the texts.
    """
    key = SpaceKey.of_turn(response)
    if not journalled or key is None or "text" in journalled[0]:
        return journalled
    recalled = with_texts(connection, journalled, key)
    return [memory for memory in recalled if memory["text"] is not None]
