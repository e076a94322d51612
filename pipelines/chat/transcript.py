"""Read from a turn's journal what earlier attempts have answered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from models.journal.events import Event

MEMORIES_RECALLED = "sangha:memory.recalled"
ENGINE_STARTED = "sangha:engine.started"
ANSWER_RESTARTED = "sangha:answer.restarted"
TEXT_DELTA = "response.output_text.delta"
#: Reasoning is journalled as a text, or where the request asks for it as a summary.
REASONING_DELTA, SUMMARY_DELTA = "response.reasoning_text.delta", "response.reasoning_summary_text.delta"
ITEM_ADDED, ITEM_DONE = "response.output_item.added", "response.output_item.done"


ItemState = Literal["none", "in_progress", "completed"]


@dataclass(slots=True)
class Transcript:
    """The part of an answer that is in the journal.

    event_types       the types of its events
    text              the joined text deltas since the last restart, and their log probabilities
    message           the state of the message item
    reasoning         the joined deltas of the reasoning item
    calls             the items of its calls, all complete
    tokens            generated tokens since the last restart
    reasoning_tokens  how many of these tokens are reasoning
    prompt_tokens     the prompt's tokens as counted when the answer began
    recalled          the memories in the prompt
    compaction        the item that replaces the conversation in the prompt
    """

    event_types: set[str]
    text: str = ""
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)
    message: ItemState = "none"
    reasoning: str = ""
    reasoning_state: ItemState = "none"
    reasoning_tokens: int = 0
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    recalled: Sequence[Mapping[str, Any]] = ()
    compaction: Mapping[str, Any] | None = None


def read_transcript(history: Iterable[Event], tokens: int) -> Transcript:
    """Read a journal; `tokens` is the number of generated tokens in it."""
    transcript = Transcript(set(), tokens=tokens)
    for event in history:
        type_ = event.type.decode()
        transcript.event_types.add(type_)
        if type_ == TEXT_DELTA:
            delta = orjson.loads(event.data)
            transcript.text += delta["delta"]
            transcript.logprobs += delta.get("logprobs") or ()
        elif type_ in (REASONING_DELTA, SUMMARY_DELTA):
            transcript.reasoning += orjson.loads(event.data)["delta"]
            transcript.reasoning_tokens += event.tokens
        elif type_ == MEMORIES_RECALLED:
            transcript.recalled = orjson.loads(event.data)["memories"]
        elif type_ == ENGINE_STARTED:
            transcript.prompt_tokens = orjson.loads(event.data)["prompt_tokens"]
        elif type_ == ANSWER_RESTARTED:
            restart(transcript, orjson.loads(event.data)["discarded_tokens"])
        elif type_ in (ITEM_ADDED, ITEM_DONE):
            _read_item(transcript, type_, orjson.loads(event.data)["item"])
    return transcript


def restart(transcript: Transcript, discarded_tokens: int) -> None:
    """Discard the answer. The message item stays, unless there is reasoning: then both items are created again."""
    transcript.tokens -= discarded_tokens
    transcript.text, transcript.logprobs = "", []
    if transcript.reasoning_state != "none":
        transcript.message = transcript.reasoning_state = "none"
        transcript.reasoning, transcript.reasoning_tokens = "", 0


def _read_item(transcript: Transcript, type_: str, item: Mapping[str, Any]) -> None:
    state: ItemState = "in_progress" if type_ == ITEM_ADDED else "completed"
    if item["type"] == "message":
        transcript.message = state
    elif item["type"] == "reasoning":
        transcript.reasoning_state = state
    elif item["type"] == "compaction":
        transcript.compaction = item
    elif type_ == ITEM_DONE:
        transcript.calls.append(item)
