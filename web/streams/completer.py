"""Put the fields that a journal stores once into the events of a stream."""

from collections.abc import Awaitable, Callable, Sequence

from models.journal.events import Event
from models.journal.shared_fields import SharedFields, is_incomplete
from models.platform.errors import Unavailable


class Completer:
    """Completes the events of one stream. Reads the journal's first event with `read_first` when it needs it."""

    __slots__ = ("_fields", "_job_id", "_read_first")

    def __init__(self, job_id: str, read_first: Callable[[str], Awaitable[Event | None]]) -> None:
        self._job_id = job_id
        self._read_first = read_first
        self._fields: SharedFields | None = None

    async def complete(self, events: list[Event]) -> list[Event]:
        """Return the events as clients receive them. Raises Unavailable if the first event cannot be read."""
        if not any(map(is_incomplete, events)):
            return events
        if self._fields is None:
            self._fields = SharedFields(await self._first_of(events))
        return [self._fields.complete(event) for event in events]

    async def _first_of(self, events: Sequence[Event]) -> Event:
        first = events[0] if events[0].sequence == 0 else await self._read_first(self._job_id)
        if first is None:  # the job has just been deleted
            raise Unavailable("the first event of its journal cannot be found")
        return first
