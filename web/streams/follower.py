"""The followers of jobs in a web process, and the events that each of them misses."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from models.journal.events import REWOUND, Event
from models.journal.shards import Appended

#: Queued appends, and bytes of their events, above which a slow follower drops them. It reads the history instead.
MAX_QUEUE, MAX_QUEUED_BYTES = 2048, 131_072

#: Queued appends that a follower takes at once: they go to the client in one write.
MAX_BATCH = 64


class Follower:
    """One follower of one job, with the appends that it has not processed. Small, since a process has ten thousand.

    position  the sequence number of the last event that it has yielded
    rewind    the last rewind that it has yielded, as JSON
    active    it has received an append since the last check
    stale     it may have missed events, so it has to read the history
    behind    it was too slow and drops appends until it reads the history
    reading   the history may have more events than it has read
    resume    the sequence number after which to read on, once it has yielded what it has
    ended     the job has ended, so after the history no event follows
    closed    it ends without waiting for further events
    """

    __slots__ = (
        "_queued_bytes", "_waiter", "active", "behind", "closed", "ended", "position", "queue", "reading", "resume",
        "rewind", "stale",
    )  # fmt: skip

    def __init__(self) -> None:
        self.queue: list[Appended] = []
        self.position = -1
        self.rewind: bytes | None = None
        self.active = True
        self.stale = self.behind = self.reading = False
        self.resume: int | None = None
        self.ended = False
        self.closed = False
        self._queued_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self, append: Appended) -> None:
        """Queue an append, or drop all if there are too many: then the follower reads them from the history."""
        self.active = True
        if self.behind:
            return
        self._queued_bytes += sum(map(len, append.lines))
        self.queue.append(append)
        if len(self.queue) > MAX_QUEUE or self._queued_bytes > MAX_QUEUED_BYTES:
            self.queue, self._queued_bytes = [], 0
            self.behind = self.stale = True
        self._wake()

    def push_opening(self, events: Sequence[Event]) -> None:
        """Queue the first events of a job that has just been created, which saves reading its history."""
        if events:
            self.queue.insert(0, Appended(events[0].sequence, [event.data for event in events]))
            self._wake()

    def mark_stale(self, *, ended: bool = False) -> None:
        """Make the follower read the history; `ended` when the job has ended, and no further event will follow."""
        self.stale = True
        self.ended = self.ended or ended
        self._wake()

    def close(self) -> None:
        """End the follower; its client reconnects with its last id."""
        self.closed = True
        self._wake()

    def read_from(self, position: int) -> None:
        """Read the history above a sequence number next."""
        self.resume, self.reading = position, True

    def yielded(self, events: Sequence[Event]) -> None:
        """Note that these events were yielded."""
        self.position = events[-1].sequence
        self.rewind = next((event.data for event in reversed(events) if event.type == REWOUND), self.rewind)

    def pop_batch(self) -> list[Appended]:
        """Remove and return the oldest queued appends, at most `MAX_BATCH`."""
        batch, self.queue = self.queue[:MAX_BATCH], self.queue[MAX_BATCH:]
        self._queued_bytes = sum(len(line) for append in self.queue for line in append.lines) if self.queue else 0
        return batch

    async def wait(self) -> None:
        """Wait until there is something to process."""
        if not (self.queue or self.stale or self.closed):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


class Merged(NamedTuple):
    """The new events of appends, up to the first one that is missing.

    resume  the sequence number after which the history has to be read; None if no event is missing
    """

    events: list[Event]
    resume: int | None = None


def merge_appends(appends: Sequence[Appended], position: int) -> Merged:
    """Return the events of appends that are new at `position`.

    An event that announces a rewind is new at any position. One among or after missing events lowers `resume`.
    """
    events: list[Event] = []
    for index, append in enumerate(appends):
        if append.first > position + 1 or not append.lines:
            rewinds = [sequence for later in appends[index:] for sequence in _rewinds(later)]
            return Merged(events, min([position, *(sequence - 1 for sequence in rewinds)]))
        new = events_after(_events_of(append), position)
        if new:
            events += new
            position = new[-1].sequence
    return Merged(events)


def _events_of(append: Appended) -> list[Event]:
    return [Event(append.first + offset, line) for offset, line in enumerate(append.lines)]


def _rewinds(append: Appended) -> list[int]:
    """Return the sequence numbers of an append's rewinds."""
    announced = [] if append.rewound is None else [append.rewound]
    return [*announced, *(event.sequence for event in _events_of(append) if event.type == REWOUND)]


def events_after(events: list[Event], position: int) -> list[Event]:
    """Return the events above `position`, or from the first one on that announces a rewind."""
    for index, event in enumerate(events):
        if event.sequence > position or event.type == REWOUND:
            return events[index:]
    return []
