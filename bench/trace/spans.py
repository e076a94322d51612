"""Record spans: what a thread did, and when. Kept in memory, written to a file when the process ends.

Times are nanoseconds of the machine's monotonic clock, which all its processes share.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

#: `work` is Sangha's own code, `wait` waiting for a thread, `mark` an instant; the others are round trips to a server.
SpanKind = Literal["work", "wait", "mark", "postgres", "valkey", "rabbitmq"]


@dataclass(frozen=True, slots=True)
class Span:
    """An operation of one thread. `parts` are the statements or commands of a round trip."""

    kind: SpanKind
    label: str
    thread: str
    begin: int
    end: int
    parts: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float:
        """The duration."""
        return (self.end - self.begin) / 1e6


class Recorder:
    """Records the spans of all threads."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def add(self, kind: SpanKind, label: str, begin: int, parts: Iterable[str] = ()) -> None:
        """Record a span that ends now."""
        self.spans.append(Span(kind, label, thread_name(), begin, time.monotonic_ns(), tuple(parts)))

    def mark(self, label: str) -> None:
        """Record an instant."""
        self.add("mark", label, time.monotonic_ns())

    @contextmanager
    def around(self, kind: SpanKind, label: str, parts: Iterable[str] = ()) -> Iterator[None]:
        """Record the block, whether it succeeds or fails."""
        begin = time.monotonic_ns()
        try:
            yield
        finally:
            self.add(kind, label, begin, parts)

    def save(self, file: Path) -> None:
        """Write all spans; the file appears only once it is complete."""
        incomplete = file.with_suffix(".new")
        incomplete.write_bytes(orjson.dumps([asdict(span) for span in list(self.spans)]))
        incomplete.rename(file)


def load(file: Path) -> list[Span]:
    """Read a file that `save` wrote."""
    rows: list[dict[str, Any]] = orjson.loads(file.read_bytes())
    return [Span(**{**row, "parts": tuple(row["parts"])}) for row in rows]


def thread_name() -> str:
    """Name the current thread by its role: the threads of Dramatiq and of pools only have numbers, or no names."""
    thread = threading.current_thread()
    kind = type(thread).__name__
    return thread.name.partition("_")[0] if kind in ("Thread", "_MainThread") else kind
