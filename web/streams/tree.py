"""Follow a job and all jobs below it as one stream.

Each journal names the jobs that its calls have, so a job is followed from when its parent announces it. An event has
the key `job` before its own ones. The id of each event is a cursor: the positions in all journals that are open at that
point, from which the stream can be resumed. A journal that was delivered to its end is in no later cursor.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress

import orjson

from models.journal.events import Event
from models.platform.json_lines import escape_line_separators
from web.streams.sse import Frame

#: Follows one job after a sequence number, in batches of events that arrived together.
FollowJob = Callable[[str, int], AsyncGenerator[list[Event], None]]

#: Events that announce a job below the one whose journal has them.
ANNOUNCEMENTS = frozenset({b"sangha:tool_call.started", b"sangha:agent.started", b"sangha:approval.requested"})

#: Jobs that one stream follows at a time. Others begin when one of these has ended.
MAX_JOBS = 128

#: Seconds after which a job is looked for again that was announced, and does not exist yet.
RETRY_AFTER = 0.25

#: By job, the sequence number of the last delivered event.
Positions = Mapping[str, int]

_SEPARATOR, _ASSIGN = "~", "."


def encode_cursor(positions: Positions) -> str:
    """Return positions as the id of an event."""
    return _SEPARATOR.join(f"{job_id}{_ASSIGN}{position}" for job_id, position in positions.items())


def decode_cursor(cursor: str) -> Positions:
    """Parse the id of an event. Raises ValueError for another text."""
    positions = {}
    for part in cursor.split(_SEPARATOR):
        job_id, _, position = part.partition(_ASSIGN)
        if not (job_id.startswith("job_") and job_id[4:].isalnum() and len(job_id) == 36) or len(position) > 9:
            raise ValueError(f"not a position in a journal: {part[:60]}")
        positions[job_id] = int(position)
    if len(positions) > MAX_JOBS:
        raise ValueError(f"more than {MAX_JOBS} jobs")
    return positions


class TreeStream:
    """One stream of a tree. `follow` follows each of its journals.

    positions  where to begin: of the root alone, or those of a cursor
    """

    def __init__(self, root: str, follow: FollowJob, positions: Positions) -> None:
        self._root = root
        self._follow = follow
        self._positions = dict(positions)
        self._waiting: list[str] = []
        self._sources: dict[str, AsyncGenerator[list[Event], None]] = {}
        self._reads: dict[asyncio.Task[list[Event] | None], str] = {}
        self._ended: set[str] = set() if root in positions else {root}  # no cursor has a journal that has ended

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the events as frames, until the root and all jobs that it has announced have ended."""
        try:
            for job_id in list(self._positions):
                self._open(job_id)
            while self._reads:
                done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
                for read in done:
                    job_id, events = self._reads.pop(read), read.result()
                    if events:
                        yield self._frame(job_id, events)
                    if not await self._continue(job_id, events):
                        return
        finally:
            await self._close()

    def _frame(self, job_id: str, events: list[Event]) -> Frame:
        pieces = []
        for event in events:
            self._positions[job_id] = event.sequence
            if event.type in ANNOUNCEMENTS:
                self._announce(event)
            if event.ends:
                self._ended.add(job_id)
            pieces.append(_encode(self._cursor(job_id), job_id, event))
        return b"".join(pieces)

    def _cursor(self, job_id: str) -> str:
        is_open = {each: at for each, at in self._positions.items() if each not in self._ended}
        last = self._root if self._root in self._positions else job_id
        return encode_cursor(is_open or {last: self._positions[last]})

    def _announce(self, event: Event) -> None:
        job_id = orjson.loads(event.data).get("job_id")
        if job_id and job_id not in self._positions:
            self._positions[job_id] = -1
            self._open(job_id)

    def _open(self, job_id: str) -> None:
        if len(self._sources) >= MAX_JOBS:
            self._waiting.append(job_id)
            return
        self._sources[job_id] = self._follow(job_id, self._positions[job_id])
        self._read(job_id)

    def _read(self, job_id: str) -> None:
        self._reads[asyncio.create_task(_next(self._sources[job_id]))] = job_id

    async def _continue(self, job_id: str, events: list[Event] | None) -> bool:
        """Read on, or replace a journal that has ended by a waiting one. Returns False if the stream cannot go on."""
        if events is not None and job_id not in self._ended:
            self._read(job_id)
            return True
        del self._sources[job_id]
        if job_id not in self._ended:  # no event says so: the job does not exist yet, or the process stops
            if job_id == self._root:
                return False
            if self._root not in self._ended:
                await asyncio.sleep(RETRY_AFTER)
                self._open(job_id)
        if self._waiting:
            self._open(self._waiting.pop(0))
        return True

    async def _close(self) -> None:
        for read in self._reads:
            read.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
        for source in self._sources.values():
            with suppress(RuntimeError):
                await source.aclose()


async def _next(source: AsyncGenerator[list[Event], None]) -> list[Event] | None:
    """Return the next batch of a journal, or None at its end."""
    return await anext(source, None)


def _encode(cursor: str, job_id: str, event: Event) -> bytes:
    head = b"id: %b\nevent: %b\ndata: " % (cursor.encode(), event.type)
    return b'%b{"job":"%b",%b\n\n' % (head, job_id.encode(), escape_line_separators(event.data[1:]))
