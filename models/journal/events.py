"""Events: what happens to a job, as its followers see it.

An event is kept as the very bytes that go over the wire, `{"type":…,"sequence_number":…,…}` with these two keys first,
so that nobody between the worker and the client has to parse it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

#: The events after which a journal has no more.
ENDINGS: frozenset[bytes] = frozenset(
    {
        b"response.completed",
        b"response.failed",
        b"response.incomplete",
        b"sangha:job.completed",
        b"sangha:job.failed",
        b"sangha:job.cancelled",
        b"sangha:job.dead",
    }
)

#: Events were lost with both the worker and the journal's store; what follows takes the place of what was heard
#: from this sequence number on.
REWOUND = b"sangha:journal.rewound"

_START = len(b'{"type":"')

_EXTENSION, _OLD_EXTENSION = b'{"type":"sangha:', b'{"type":"sangha.'


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its sequence number, its JSON as bytes, and how many generated tokens it carries."""

    sequence: int
    data: bytes
    tokens: int = 0

    @property
    def type(self) -> bytes:
        """The value of the first key."""
        return self.data[_START : self.data.index(b'"', _START)]

    @property
    def ends(self) -> bool:
        """Whether this is the journal's last event."""
        return self.type in ENDINGS


def event(sequence: int, type_: str, payload: Mapping[str, Any], tokens: int = 0) -> Event:
    """Serialise an event."""
    return Event(sequence, orjson.dumps({"type": type_, "sequence_number": sequence, **payload}), tokens)


def renamed(data: bytes) -> bytes:
    """Return an event's JSON with the present name of its type, `sangha:subject.verb` for `sangha.subject.verb`.

    The old names occur in journals in Redis that were written before an upgrade, and in what a worker of the earlier
    version archives after the archive was migrated.
    """
    return _EXTENSION + data[len(_OLD_EXTENSION) :] if data.startswith(_OLD_EXTENSION) else data


def to_lines(events: Iterable[Event]) -> bytes:
    """Events as one JSON object a line; JSON holds no raw line break, so this is exact."""
    return b"\n".join(event.data for event in events)


def from_lines(first: int, lines: bytes) -> list[Event]:
    """The events of `to_lines`, the first of which has the sequence number `first`."""
    return [Event(first + place, renamed(line)) for place, line in enumerate(lines.split(b"\n"))]
