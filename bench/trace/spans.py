"""Spans: what a thread did, from when to when. Kept in memory, written to a file when the process ends.

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

#: `work` is code of ours, `wait` a hand-over to another thread, `mark` a moment; the others are trips to a server.
Kind = Literal["work", "wait", "mark", "postgres", "valkey", "rabbitmq"]


@dataclass(frozen=True, slots=True)
class Span:
    """What one thread did. `parts` are the statements or commands that a trip carried."""

    kind: Kind
    label: str
    thread: str
    begin: int
    end: int
    parts: tuple[str, ...] = ()

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.begin) / 1e6


class Recorder:
    """Takes spans of all threads."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def add(self, kind: Kind, label: str, begin: int, parts: Iterable[str] = ()) -> None:
        """Something that began then has ended now."""
        self.spans.append(Span(kind, label, thread(), begin, time.monotonic_ns(), tuple(parts)))

    def mark(self, label: str) -> None:
        """Something happens now."""
        self.add("mark", label, time.monotonic_ns())

    @contextmanager
    def around(self, kind: Kind, label: str, parts: Iterable[str] = ()) -> Iterator[None]:
        """What happens within, whether it succeeds or fails."""
        begin = time.monotonic_ns()
        try:
            yield
        finally:
            self.add(kind, label, begin, parts)

    def save(self, file: Path) -> None:
        """Write all of them, by another name first: whoever finds the file finds it whole."""
        fresh = file.with_suffix(".new")
        fresh.write_bytes(orjson.dumps([asdict(span) for span in list(self.spans)]))
        fresh.rename(file)


def load(file: Path) -> list[Span]:
    """What `save` wrote."""
    rows: list[dict[str, Any]] = orjson.loads(file.read_bytes())
    return [Span(**{**row, "parts": tuple(row["parts"])}) for row in rows]


def thread() -> str:
    """The present thread by its part: Dramatiq's and the pools' threads have numbers, or no names, of their own."""
    present = threading.current_thread()
    kind = type(present).__name__
    return present.name if kind in ("Thread", "_MainThread") else kind
