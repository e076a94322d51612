"""One turn of a trace: the spans between its POST and its last event, by lane, in milliseconds from the POST.

A lane is what one thread does, or what one server is asked; threads of a pool share one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.trace.run import Traced, Turn
from bench.trace.spans import Kind, Span

#: The lanes in the order in which a turn first comes to them, and what they are called.
CLIENT, POSTGRES, VALKEY, RABBITMQ = "client", "Postgres", "Valkey", "broker"
LANES: Mapping[tuple[str, str], str] = {
    ("web", "MainThread"): "web: event loop",
    ("web", "WorkerThread"): "web: threads",
    ("web", "relay"): "web: relay",
    ("worker", "ConsumerThread"): "worker: consumer",
    ("worker", "WorkerThread"): "worker: turn",
    ("worker", "journal-writer"): "worker: journal",
}
SERVERS: Mapping[Kind, str] = {"postgres": POSTGRES, "valkey": VALKEY, "rabbitmq": RABBITMQ}


@dataclass(frozen=True, slots=True)
class Step:
    """A span of a turn, in its lane."""

    lane: str
    kind: Kind
    label: str
    begin: float
    end: float
    parts: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


def median(turns: Sequence[Turn]) -> Turn:
    """The turn whose time is the middle one."""
    return sorted(turns, key=lambda turn: turn.end - turn.begin)[len(turns) // 2]


def steps(traced: Traced, turn: Turn) -> list[Step]:
    """What was done for a turn, in time's order: what began between its POST and its last event."""
    found = [
        step(turn, LANES[process, span.thread], span)
        for process, spans in traced.spans.items()
        for span in spans
        if turn.begin <= span.begin <= turn.end and (process, span.thread) in LANES
    ]
    return sorted([*found, *heard(turn)], key=lambda step: step.begin)


def step(turn: Turn, lane: str, span: Span) -> Step:
    """A span with times from the POST on."""
    begin, end = ((time - turn.begin) / 1e6 for time in (span.begin, span.end))
    return Step(lane, span.kind, span.label, begin, end, span.parts)


def heard(turn: Turn) -> Iterator[Step]:
    """What the client heard, what came together in one."""
    yield Step(CLIENT, "mark", "POST", 0.0, 0.0)
    for at in sorted({event.at for event in turn.heard}):
        types = tuple(event.type for event in turn.heard if event.at == at)
        when = at * 1e3 - turn.begin / 1e6
        yield Step(CLIENT, "mark", " + ".join(types), when, when, types)
