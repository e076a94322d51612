"""What the prompt cache saves: a conversation's second turn against its first, and the step after a tool's answer.

And whether a worker is warm when it claims its first turn: that turn against the next one, with other text of the same
length. Real engine, the bundled model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, at_least, at_most
from bench.harness.client import Client
from bench.harness.sse import CheckFailed, ReceivedEvent, is_delta
from bench.harness.stack import WITHOUT_MEMORY
from bench.scenario import Bench

#: Conversations of the comparison, and fresh workers.
CONVERSATIONS, WORKERS = 8, 3

#: Words of the instructions of each conversation: about 900 tokens.
WORDS = 700

#: Whether a worker's first turn is as quick as its second, within what turns vary.
WARM = 1.5

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
}


@dataclass(frozen=True, slots=True)
class MeasuredTurn:
    """A turn: milliseconds to its first token or its end, the response, and the share of its prompt that was cached."""

    first: float
    response: dict[str, Any]

    @property
    def cached(self) -> float:
        """The share of the prompt's tokens that was cached."""
        usage = self.response["usage"]
        return float(usage["input_tokens_details"]["cached_tokens"] / usage["input_tokens"])


def prefix(bench: Bench) -> Sequence[Figure]:
    """Measure conversations on one worker, and the first turns of fresh ones."""
    with bench.stack.platform() as platform:
        client = platform.client()
        turn(client, "Hello.")
        conversations = []
        for number in range(CONVERSATIONS):
            bench.progress.step(number, CONVERSATIONS, "conversations")
            conversations.append(conversation(client, number))
    firsts, seconds, steps = zip(*conversations, strict=True)
    fresh = [fresh_worker(bench, number) for number in range(WORKERS)]
    return [
        Figure("first turn of a conversation → first token", "ms", [each.first for each in firsts]),
        Figure("second turn → first token", "ms", [each.first for each in seconds]),
        Figure("second turn ÷ first", "x", [b.first / a.first for a, b, _ in conversations], at_most(0.5)),
        Figure("second turn: cached share of its prompt", "x", [each.cached for each in seconds], at_least(0.9)),
        Figure("step after a tool's answer: cached share", "x", [each.cached for each in steps], at_least(0.8)),
        Figure("fresh worker: first turn ÷ the next one", "x", fresh, at_most(WARM)),
    ]


def conversation(client: Client, number: int) -> tuple[MeasuredTurn, MeasuredTurn, MeasuredTurn]:
    """Return a first turn, the second one, and the step after a function's result in another response."""
    options = {"instructions": instructions(number)}
    first = turn(client, "Name a colour.", **options)
    second = turn(client, "Another one?", previous_response_id=first.response["id"], **options)
    tools = {"tools": [WEATHER], "instructions": instructions(number + CONVERSATIONS)}
    call = turn(client, "The weather in Rome?", tool_choice="required", max_output_tokens=64, **tools)
    calls = [item for item in call.response["output"] if item["type"] == "function_call"]
    if not calls:
        raise CheckFailed(f"no function was called: {call.response['output']}")
    results = [{"type": "function_call_output", "call_id": each["call_id"], "output": "sun"} for each in calls]
    step = turn(client, "", input=results, previous_response_id=call.response["id"], **tools)
    return first, second, step


def fresh_worker(bench: Bench, number: int) -> float:
    """Return the time of a new worker's first turn ÷ that of its second, each of its own conversation."""
    bench.progress.step(number, WORKERS, "fresh workers")
    with bench.stack.platform() as platform:
        client = platform.client()
        first = turn(client, "Name a colour.", instructions=instructions(100 + number))
        return first.first / turn(client, "Name a colour.", instructions=instructions(200 + number)).first


def turn(client: Client, text: str, **options: Any) -> MeasuredTurn:
    """Run a turn."""
    options = {"max_output_tokens": 8, "temperature": 0, **WITHOUT_MEMORY, **options}
    began = time.monotonic()
    events = list(client.stream(text, **options))
    ended = events[-1]
    if ended.type not in ("response.completed", "response.incomplete"):
        raise CheckFailed(f"a turn ended with {ended.type}: {ended.data.decode()[:500]}")
    return MeasuredTurn((first_output_at(events) - began) * 1000, ended.json()["response"])


def first_output_at(events: Sequence[ReceivedEvent]) -> float:
    """Return when the first text was received, or the end of an answer without any."""
    return next((event.at for event in events if is_delta(event)), events[-1].at)


def instructions(number: int) -> str:
    """Return instructions that share no beginning with those of another number."""
    return " ".join(
        f"{(number + 1) * 7919 + word * 31 % 97}" if word % 9 == 0 else "be kind" for word in range(WORDS // 2)
    )
