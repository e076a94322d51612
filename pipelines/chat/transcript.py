"""What earlier attempts of a turn have said, read back from its journal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from models.journal.events import Event

RECALLED = "sangha:memory.recalled"
STARTED = "sangha:engine.started"
RESTARTED = "sangha:answer.restarted"
DELTA = "response.output_text.delta"
ADDED, DONE = "response.output_item.added", "response.output_item.done"


@dataclass(slots=True)
class Transcript:
    """What the journal holds of an answer.

    seen           the types of its events
    text           the deltas joined, since the last restart
    message        how far the item that holds the text has come
    calls          the items of its calls: each is whole, or not there
    tokens         generated tokens, since the last restart
    prompt_tokens  as counted when the answer was begun
    recalled       the memories that were told to be in the prompt
    """

    seen: set[str]
    text: str = ""
    message: Literal["none", "begun", "ended"] = "none"
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    recalled: Sequence[Mapping[str, Any]] = ()


def read_transcript(history: Iterable[Event], tokens: int) -> Transcript:
    """Read a journal; `tokens` are all that it carries."""
    transcript = Transcript(set(), tokens=tokens)
    for event in history:
        type_ = event.type.decode()
        transcript.seen.add(type_)
        if type_ == DELTA:
            transcript.text += orjson.loads(event.data)["delta"]
        elif type_ == RECALLED:
            transcript.recalled = orjson.loads(event.data)["memories"]
        elif type_ == STARTED:
            transcript.prompt_tokens = orjson.loads(event.data)["prompt_tokens"]
        elif type_ == RESTARTED:
            transcript.tokens -= orjson.loads(event.data)["discarded_tokens"]
            transcript.text = ""
        elif type_ in (ADDED, DONE):
            _read_item(transcript, type_, orjson.loads(event.data)["item"])
    return transcript


def _read_item(transcript: Transcript, type_: str, item: Mapping[str, Any]) -> None:
    if item["type"] == "message":
        transcript.message = "begun" if type_ == ADDED else "ended"
    elif type_ == DONE:
        transcript.calls.append(item)
