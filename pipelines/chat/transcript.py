"""Read from a turn's journal what earlier attempts have answered.

A turn has one step for each generation. `sangha:step.generated` marks the end of one whose calls the server runs; the
next step generates with their outputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from models.jobs.usage import Segment, merge_segments
from models.journal.events import Event
from models.turns.responses import TokenUsage

MEMORIES_RECALLED = "sangha:memory.recalled"
ENGINE_STARTED, ENGINE_CHANGED = "sangha:engine.started", "sangha:engine.changed"
PROMPT_READ = "sangha:engine.prompt_read"
ANSWER_RESTARTED = "sangha:answer.restarted"
STEP_GENERATED = "sangha:step.generated"
#: Their payloads name the job that the turn waits for, by the id of an item.
CALL_STARTED, AGENT_STARTED = "sangha:tool_call.started", "sangha:agent.started"
APPROVAL_REQUESTED = "sangha:approval.requested"
HANDED_OFF = "sangha:agent.handed_off"
TEXT_DELTA = "response.output_text.delta"
#: Reasoning is journalled as a text, or where the request asks for it as a summary.
REASONING_DELTA, SUMMARY_DELTA = "response.reasoning_text.delta", "response.reasoning_summary_text.delta"
CALL_ARGUMENTS = "response.mcp_call_arguments.done"
ITEM_ADDED, ITEM_DONE = "response.output_item.added", "response.output_item.done"

#: Types of items that precede the answer.
LEADING_ITEMS = frozenset({"compaction", "mcp_list_tools"})


ItemState = Literal["none", "in_progress", "completed"]

NO_TOKENS = TokenUsage(0, 0, 0)


@dataclass(slots=True)
class Step:
    """What the journal has of one step.

    begun             whether the engine has started
    since             the sequence number of the event that says so
    usage             the tokens of the generation, once it has ended and the server runs its calls
    text              the joined text deltas since the last restart, and their log probabilities
    message           the state of the message item
    reasoning         the joined deltas of the reasoning item
    calls             the items of its calls, and of requests for approval, in the order in which they were added
    tokens            generated tokens since the last restart
    reasoning_tokens  how many of these tokens are reasoning
    prompt_tokens     the prompt's tokens as counted when the step began
    done              its complete items by their output index
    engine            what generates it: a segment without tokens
    segments          what other engines have generated of it before, since the last restart
    """

    number: int = 0
    begun: bool = False
    since: int = 0
    usage: TokenUsage | None = None
    text: str = ""
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)
    message: ItemState = "none"
    reasoning: str = ""
    reasoning_state: ItemState = "none"
    reasoning_tokens: int = 0
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    done: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    engine: Segment | None = None
    segments: list[Segment] = field(default_factory=list)

    def change_engine(self, engine: Segment, prompt_tokens: int) -> None:
        """Continue with another engine. It reads the prompt for its own tokens only where it begins the answer."""
        if self.engine is not None and (generated := self.tokens - self._tokens_of_others):
            self.segments.append(replace(self.engine, output_tokens=generated))
        self.engine = engine
        self.prompt_tokens = self.prompt_tokens if self.segments else prompt_tokens

    def bill_by_engine(self, usage: TokenUsage) -> list[Segment]:
        """Split the tokens of the step by engine. The one that begins the answer has those of the prompt."""
        if self.engine is None:
            return []
        last = replace(self.engine, output_tokens=usage.output_tokens - self._tokens_of_others)
        parts = [*self.segments, *([last] if last.output_tokens or not self.segments else [])]
        first = replace(parts[0], input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens)
        return [first, *parts[1:]]

    @property
    def _tokens_of_others(self) -> int:
        return sum(segment.output_tokens for segment in self.segments)


@dataclass(slots=True)
class Transcript:
    """The part of an answer that is in the journal.

    event_types  the types of its events
    step         the last step
    items        the items of the steps before it, and those that precede the answer
    usage        the tokens of the steps before it
    segments     these tokens by engine
    counted      how many of these the budget of the turn's tree has counted, if the turn is its root
    waits        by the id of a call or a request for approval, the event that names the job which the turn waits for
    tier         the tier of service that was decided when the turn began
    recalled     the memories in the prompt
    agent        the agent that has taken over the turn from the one that was asked
    handoffs     the ids of the calls by which agents have taken over
    """

    event_types: set[str] = field(default_factory=set)
    step: Step = field(default_factory=Step)
    items: list[Mapping[str, Any]] = field(default_factory=list)
    usage: TokenUsage = NO_TOKENS
    segments: list[Segment] = field(default_factory=list)
    counted: int = 0
    waits: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tier: str | None = None
    recalled: Sequence[Mapping[str, Any]] = ()
    agent: Mapping[str, Any] | None = None
    handoffs: set[str] = field(default_factory=set)

    @property
    def compaction(self) -> Mapping[str, Any] | None:
        """The item that replaces the conversation in the prompt."""
        return next((item for item in self.items if item["type"] == "compaction"), None)

    @property
    def answered_items(self) -> list[Mapping[str, Any]]:
        """The items of earlier steps, which the next one continues."""
        return [item for item in self.items if item["type"] not in LEADING_ITEMS]

    def hand_off(self, call_id: str, agent: Mapping[str, Any]) -> None:
        """Let another agent continue from the next step on."""
        self.agent = agent
        self.handoffs.add(call_id)

    def begin_next_step(self) -> None:
        """Begin the step after one whose calls have outputs."""
        assert self.step.usage is not None
        self.items += [item for _, item in sorted(self.step.done.items())]
        self.usage = add_usage(self.usage, self.step.usage)
        self.segments = merge_segments([*self.segments, *self.step.bill_by_engine(self.step.usage)])
        if any(self.waits.get(item["id"], {}).get("job_id") for item in self.step.calls):
            self.counted = self.usage.input_tokens + self.usage.output_tokens  # with the wait of the step
        self.step = Step(self.step.number + 1)


def add_usage(first: TokenUsage, second: TokenUsage) -> TokenUsage:
    """Add up the tokens of two generations."""
    return TokenUsage(
        first.input_tokens + second.input_tokens,
        first.cached_tokens + second.cached_tokens,
        first.output_tokens + second.output_tokens,
        first.reasoning_tokens + second.reasoning_tokens,
    )


def read_transcript(history: Iterable[Event], tokens: int) -> Transcript:
    """Read a journal; `tokens` is the number of generated tokens in it."""
    transcript = Transcript()
    earlier = 0  # tokens of completed steps, and of discarded parts of the answer
    for event in history:
        type_ = event.type.decode()
        transcript.event_types.add(type_)
        if type_ == STEP_GENERATED:
            transcript.step.usage = TokenUsage(**orjson.loads(event.data)["usage"])
        elif type_ == ENGINE_STARTED and transcript.step.usage is not None:
            earlier += transcript.step.usage.output_tokens
            transcript.begin_next_step()
            _read_start(transcript, event)
        elif type_ == ANSWER_RESTARTED:
            payload = orjson.loads(event.data)
            earlier += payload["discarded_tokens"]
            restart(transcript.step, payload["discarded_tokens"])
        elif type_ in _READERS:
            _READERS[type_](transcript, event)
    transcript.step.tokens = tokens - earlier
    return transcript


def restart(step: Step, discarded_tokens: int) -> None:
    """Discard the answer. The message item stays, unless there is reasoning: then both items are created again."""
    step.tokens -= discarded_tokens
    step.text, step.logprobs, step.segments = "", [], []
    if step.reasoning_state != "none":
        step.message = step.reasoning_state = "none"
        step.reasoning, step.reasoning_tokens = "", 0


def _read_text(transcript: Transcript, event: Event) -> None:
    delta = orjson.loads(event.data)
    transcript.step.text += delta["delta"]
    transcript.step.logprobs += delta.get("logprobs") or ()


def _read_reasoning(transcript: Transcript, event: Event) -> None:
    transcript.step.reasoning += orjson.loads(event.data)["delta"]
    transcript.step.reasoning_tokens += event.tokens


def _read_tier(transcript: Transcript, event: Event) -> None:
    transcript.tier = (orjson.loads(event.data).get("response") or {}).get("service_tier")


def _read_recalled(transcript: Transcript, event: Event) -> None:
    transcript.recalled = orjson.loads(event.data)["memories"]


def _read_start(transcript: Transcript, event: Event) -> None:
    payload = orjson.loads(event.data)
    transcript.step.begun, transcript.step.since = True, event.sequence
    transcript.step.prompt_tokens, transcript.step.engine = payload["prompt_tokens"], _engine(payload)


def _read_change(transcript: Transcript, event: Event) -> None:
    """Read that another engine continues. Until the whole journal is read, only the event has the tokens so far."""
    payload, step = orjson.loads(event.data), transcript.step
    step.tokens = payload["tokens"]
    step.change_engine(_engine(payload), payload["prompt_tokens"])


def _engine(payload: Mapping[str, Any]) -> Segment:
    """Return the engine that an event names. Those of earlier versions name no endpoint."""
    endpoint = (payload["endpoint"] or "") if "endpoint" in payload else None
    return Segment(payload.get("model", ""), endpoint)


def _read_wait(transcript: Transcript, event: Event) -> None:
    payload = orjson.loads(event.data)
    transcript.waits[payload["item_id"]] = payload


def _read_handoff(transcript: Transcript, event: Event) -> None:
    payload = orjson.loads(event.data)
    transcript.hand_off(payload["item_id"], payload["agent"])


def _read_item(transcript: Transcript, event: Event) -> None:
    payload = orjson.loads(event.data)
    item, step = payload["item"], transcript.step
    done = event.type.decode() == ITEM_DONE
    state: ItemState = "completed" if done else "in_progress"
    if done and item["type"] in LEADING_ITEMS:
        transcript.items.append(item)
        return
    if done:
        step.done[payload["output_index"]] = item
    if item["type"] == "message":
        step.message = state
    elif item["type"] == "reasoning":
        step.reasoning_state = state
    elif done or item["type"] == "mcp_call":  # one that the server runs is complete only with its output
        put_item(step.calls, item)


def put_item(items: list[Mapping[str, Any]], item: Mapping[str, Any]) -> None:
    """Add an item, or replace its earlier state."""
    for number, earlier in enumerate(items):
        if earlier["id"] == item["id"]:
            items[number] = item
            return
    items.append(item)


def _read_arguments(transcript: Transcript, event: Event) -> None:
    """Read the arguments of a call that the server runs, whose item is complete only with its output."""
    payload = orjson.loads(event.data)
    for item in transcript.step.calls:
        if item["id"] == payload["item_id"]:
            put_item(transcript.step.calls, {**item, "arguments": payload["arguments"]})


_READERS = {
    "response.in_progress": _read_tier,
    TEXT_DELTA: _read_text,
    REASONING_DELTA: _read_reasoning,
    SUMMARY_DELTA: _read_reasoning,
    MEMORIES_RECALLED: _read_recalled,
    ENGINE_STARTED: _read_start,
    ENGINE_CHANGED: _read_change,
    CALL_STARTED: _read_wait,
    AGENT_STARTED: _read_wait,
    APPROVAL_REQUESTED: _read_wait,
    HANDED_OFF: _read_handoff,
    CALL_ARGUMENTS: _read_arguments,
    ITEM_ADDED: _read_item,
    ITEM_DONE: _read_item,
}
