"""The steps of a traced turn: the spans between its POST and its last event, by lane, in milliseconds from the POST.

A lane is a thread, or a server; the threads of a pool share one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.trace.run import Trace, TracedTurn
from bench.trace.spans import Span, SpanKind

#: The lanes in the order in which a turn reaches them, and their names.
CLIENT, POSTGRES, VALKEY, RABBITMQ = "client", "Postgres", "Valkey", "broker"
LANES: Mapping[tuple[str, str], str] = {
    ("web", "MainThread"): "web: event loop",
    ("web", "web"): "web: threads",
    ("web", "relay"): "web: relay",
    ("worker", "ConsumerThread"): "worker: consumer",
    ("worker", "WorkerThread"): "worker: turn",
    ("worker", "journal-writer"): "worker: journal",
}
SERVERS: Mapping[SpanKind, str] = {"postgres": POSTGRES, "valkey": VALKEY, "rabbitmq": RABBITMQ}


@dataclass(frozen=True, slots=True)
class TraceStep:
    """A span of a turn, in its lane."""

    lane: str
    kind: SpanKind
    label: str
    begin: float
    end: float
    parts: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float:
        """The duration."""
        return self.end - self.begin


def median(turns: Sequence[TracedTurn]) -> TracedTurn:
    """Return the turn of median duration."""
    return sorted(turns, key=lambda turn: turn.end - turn.begin)[len(turns) // 2]


def steps(traced: Trace, turn: TracedTurn) -> list[TraceStep]:
    """Return the steps of a turn in order of time: all that began between its POST and its last event."""
    recorded = [
        step(turn, LANES[process, span.thread], span)
        for process, spans in traced.spans.items()
        for span in spans
        if turn.begin <= span.begin <= turn.end and (process, span.thread) in LANES
    ]
    return sorted([*recorded, *client_steps(turn)], key=lambda step: step.begin)


def step(turn: TracedTurn, lane: str, span: Span) -> TraceStep:
    """Convert a span to times relative to the POST."""
    begin, end = ((time - turn.begin) / 1e6 for time in (span.begin, span.end))
    return TraceStep(lane, span.kind, span.label, begin, end, span.parts)


def client_steps(turn: TracedTurn) -> Iterator[TraceStep]:
    """Yield the events as the client received them; those that arrived together are one step."""
    yield TraceStep(CLIENT, "mark", "POST", 0.0, 0.0)
    for at in sorted({event.at for event in turn.events}):
        types = tuple(event.type for event in turn.events if event.at == at)
        begin = at * 1e3 - turn.begin / 1e6
        yield TraceStep(CLIENT, "mark", " + ".join(types), begin, begin, types)
