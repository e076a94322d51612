"""Put the fields that a journal stores once into the events of a stream."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from models.journal.events import Event
from models.journal.shared_fields import SharedFields, completed_size, is_incomplete

#: Bytes of completed events that are sent together.
PART_BYTES = 65_536


class Part(NamedTuple):
    """Events that are completed and sent together, and their bytes then."""

    events: Sequence[Event]
    size: int


def parts(events: Sequence[Event]) -> Iterator[Part]:
    """Split events into parts, each of at least one event, and of none after the one that makes it large."""
    part: list[Event] = []
    size = 0
    for event in events:
        part.append(event)
        size += completed_size(event)
        if size >= PART_BYTES:
            yield Part(part, size)
            part, size = [], 0
    if part:
        yield Part(part, size)


class Completer:
    """Completes the events of one stream. Reads the journal's first event with `first_event` when it needs it."""

    __slots__ = ("_first_event", "job_id")

    def __init__(self, job_id: str, first_event: Callable[[str], Awaitable[Event]]) -> None:
        self.job_id = job_id
        self._first_event = first_event

    async def complete(self, events: Sequence[Event]) -> list[Event]:
        """Return the events as clients receive them. Raises Unavailable if the first event cannot be read."""
        if not any(map(is_incomplete, events)):
            return list(events)
        first = events[0] if events[0].sequence == 0 else await self._first_event(self.job_id)
        fields = SharedFields(first)
        return [fields.complete(event) for event in events]
