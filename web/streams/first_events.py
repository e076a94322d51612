"""Keep the first events of followed journals, which have the large fields of the later ones."""

from collections import OrderedDict

from models.journal.events import Event

#: Bytes of all first events that are kept. Another one is read again when a later event needs it.
MAX_BYTES = 32 * 1_048_576


class FirstEvents:
    """The first events that were used last, by job: one for all streams of a job."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._size = 0

    def get(self, job_id: str) -> Event | None:
        """Return a job's first event, if it is kept."""
        event = self._events.get(job_id)
        if event is not None:
            self._events.move_to_end(job_id)
        return event

    def keep(self, job_id: str, event: Event) -> None:
        """Keep a first event, and drop those that were not used for longest."""
        self.forget(job_id)
        self._events[job_id] = event
        self._size += len(event.data)
        while self._size > MAX_BYTES:
            self.forget(next(iter(self._events)))

    def forget(self, job_id: str) -> None:
        """Drop the first event of a job."""
        if (event := self._events.pop(job_id, None)) is not None:
            self._size -= len(event.data)
