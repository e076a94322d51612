"""Follow jobs: one blocking read per process receives every event of all jobs, and passes it to the job's followers.

A follower subscribes first, then reads the history, and drops the events that it has already yielded. When it may have
missed events (a gap in the numbers, a lost connection to Redis, a long silence), it reads the history again from Redis
or from the archive. So delivery may be unreliable, as long as the journal is not.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import redis.asyncio
from starlette.concurrency import run_in_threadpool

from models.jobs.jobs import ended_ids
from models.journal import journal
from models.journal.archive import read_archive
from models.journal.events import REWOUND, Event
from models.platform.database import Database
from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

#: Queued appends at which a follower is closed as too slow. Its client reconnects with its last id.
MAX_QUEUE = 2048

#: Queued appends that a follower takes at once: they go to the client in one write.
MAX_BATCH = 64

#: Appends that one read takes from a shard at most.
READ_COUNT = 512

#: Milliseconds that a read of the shards blocks.
BLOCK = 5000

#: Seconds between two checks whether followed jobs without events since the last check have ended.
CHECK_INTERVAL = 2.0

#: Connections for reading histories, and seconds that a read may wait for a connection or for Redis.
CONNECTIONS = 16
TIMEOUT = 10.0

#: Seconds between attempts to reconnect.
RETRY_INTERVAL = 0.2

#: Errors of a lost connection. uvloop raises RuntimeError when it writes to a reset one, and redis-py passes it on.
CONNECTION_ERRORS = (redis.RedisError, OSError, RuntimeError)

#: An append: the sequence number of its first event, and its events as JSON.
Append = tuple[int, list[bytes]]


class Follower:
    """One follower of one job, with the appends that it has not processed. Small, since a process has ten thousand.

    active  it has received an append since the last check
    stale   it may have missed events, so it has to read the history
    ended   the job has ended, so after the history no event follows
    closed  it ends without waiting for further events
    """

    __slots__ = ("_waiter", "active", "closed", "ended", "queue", "stale")

    def __init__(self) -> None:
        self.queue: list[Append] = []
        self.active = True
        self.stale = False
        self.ended = False
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, first: int, lines: list[bytes]) -> None:
        """Queue an append whose first event has the sequence number `first`; closes a follower that is too slow."""
        if len(self.queue) >= MAX_QUEUE:
            self.close()
            return
        self.queue.append((first, lines))
        self.active = True
        self._wake()

    def push_opening(self, events: Sequence[Event]) -> None:
        """Queue the first events of a job that has just been created, which saves reading its history."""
        if events:
            self.queue.insert(0, (events[0].sequence, [event.data for event in events]))
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

    def pop_batch(self) -> list[Append]:
        """Remove and return the oldest queued appends, at most `MAX_BATCH`."""
        batch, self.queue = self.queue[:MAX_BATCH], self.queue[MAX_BATCH:]
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


class Tail:
    """The followers of a process and the reader that serves them all."""

    def __init__(self, url: str, database: Database) -> None:
        # Any: redis-py's type hints are unions of the results of all protocol versions.
        self._reader: Any = redis.asyncio.Redis.from_url(url, protocol=2, socket_timeout=None)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, protocol=2, max_connections=CONNECTIONS, timeout=TIMEOUT, socket_timeout=TIMEOUT
        )
        self._client: Any = redis.asyncio.Redis.from_pool(pool)
        self._database = database
        self._followers: dict[str, set[Follower]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Event()

    async def start(self) -> None:
        """Start reading. From here on an append is missed only while the connection is lost."""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._check_silent_jobs())]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reading.wait(), TIMEOUT)

    async def stop(self) -> None:
        """Stop reading and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.aclose()
        await self._client.aclose()

    def close_followers(self) -> None:
        """End all followers, because the process shuts down."""
        for followers in self._followers.values():
            for follower in followers:
                follower.close()

    def subscribe(self, job_id: str) -> Follower:
        """Start following a job, which may not exist yet. The caller must call `unsubscribe`."""
        follower = Follower()
        self._followers.setdefault(job_id, set()).add(follower)
        return follower

    def unsubscribe(self, job_id: str, follower: Follower) -> None:
        """Stop following a job. Idempotent."""
        followers = self._followers.get(job_id, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(job_id, None)

    async def follow(
        self, job_id: str, after: int = -1, follower: Follower | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Yield the events of a job above the sequence number `after`, as they arrive, until its journal ends.

        Yields batches of events that arrived together. Ends early when the process shuts down or the follower is too
        slow. A `follower` that was subscribed before the job was created and has its first events needs no history.
        """
        follower = follower or self.subscribe(job_id)
        try:
            position, events = after, await self._first_events(follower, job_id, after)
            while not follower.closed:
                if events:
                    yield events
                    position = events[-1].sequence
                    if events[-1].ends:
                        return
                events = await self._next_events(follower, job_id, position)
        finally:
            self.unsubscribe(job_id, follower)

    async def _first_events(self, follower: Follower, job_id: str, after: int) -> list[Event]:
        """Read the history, unless the follower has the job's first events."""
        if follower.queue:
            return []
        events = await self._history(job_id, after)
        if not events:  # the client may have received all events of a job that has ended
            ended = await run_in_threadpool(self._ended, [job_id])
            follower.mark_stale(ended=job_id in ended)
        return events

    async def _next_events(self, follower: Follower, job_id: str, position: int) -> list[Event]:
        """Wait for the events above `position`; empty when the queue held only known ones."""
        await follower.wait()
        if follower.queue:
            events = merge_appends(follower.pop_batch(), position)
            return await self._history(job_id, position) if events is None else events
        if not follower.stale:
            return []
        follower.stale = False
        events = await self._history(job_id, position)
        if follower.ended and not events:
            follower.close()  # the client has all events, or the job was deleted with its journal
        return events

    async def _history(self, job_id: str, after: int) -> list[Event]:
        """Read the present events above `after` from Redis, and those that Redis lacks from the archive."""
        try:
            entries = await self._client.xrange(journal.stream_key(job_id), min=f"{after + 2}-0")
            recent = journal.parse_entries(entries)
        except CONNECTION_ERRORS:
            recent = []
        if recent and recent[0].sequence == after + 1:
            return recent
        archived = await run_in_threadpool(self._archived, job_id, after)
        last = archived[-1].sequence if archived else after
        later = [event for event in recent if event.sequence > last]
        return [*archived, *later] if later and later[0].sequence == last + 1 else archived

    def _archived(self, job_id: str, after: int) -> list[Event]:
        try:
            with self._database.connection() as connection:
                return read_archive(connection, job_id, after).events
        except Unavailable:
            return []

    async def _read(self) -> None:
        """Read the shards for ever. Cursors remain valid after Redis lost its data, since its ids are timestamps."""
        cursors: dict[str, str] = {}
        while True:
            try:
                cursors = cursors or await self._newest_ids()
                self._reading.set()
                for shard, entries in await self._reader.xread(cursors, count=READ_COUNT, block=BLOCK) or ():
                    cursors[shard.decode()] = entries[-1][0].decode()
                    self._dispatch(entries)
            except CONNECTION_ERRORS as error:
                log.warning("Stream reader lost its connection to Redis; reconnecting: %s", error)
                self._reading.set()  # do not delay the start of the process while Redis is down
                await self._reconnect()
            except Exception:
                log.exception("Stream reader failed; reconnecting")
                await self._reconnect()

    async def _newest_ids(self) -> dict[str, str]:
        """Return the id of each shard's newest entry, to read on from there."""
        cursors = {}
        for shard in journal.shard_keys():
            newest = await self._reader.xrevrange(shard, count=1)
            cursors[shard] = newest[0][0].decode() if newest else "0-0"
        return cursors

    async def _reconnect(self) -> None:
        """Wait until Redis responds, then mark all followers as stale: Redis may have lost events in the meantime."""
        while True:
            await asyncio.sleep(RETRY_INTERVAL)
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self._reader.ping()
                break
        for followers in self._followers.values():
            for follower in followers:
                follower.mark_stale()

    def _dispatch(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for _, fields in entries:
            followers = self._followers.get(journal.job_id_of(fields[b"j"].decode()))
            if followers:
                _, first, lines = journal.parse_shard_entry(fields)
                for follower in followers:
                    follower.push(first, lines)

    async def _check_silent_jobs(self) -> None:
        """Wake the followers of jobs that ended without an event in Redis, periodically for ever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            silent = [job_id for job_id, followers in self._followers.items() if not _reset_active(followers)]
            if silent:
                for job_id in await run_in_threadpool(self._ended, silent):
                    for follower in self._followers.get(job_id, ()):
                        follower.mark_stale(ended=True)

    def _ended(self, job_ids: Sequence[str]) -> set[str]:
        """Return those jobs that have ended; empty while Postgres is down."""
        try:
            with self._database.connection() as connection:
                return ended_ids(connection, job_ids)
        except Unavailable:
            return set()
        except Exception:
            log.exception("Cannot check which followed jobs have ended; retrying in %g s", CHECK_INTERVAL)
            return set()


def merge_appends(appends: Sequence[Append], position: int) -> list[Event] | None:
    """Return the events of appends that are new at `position`; None when some are missing before or between them.

    An event that announces a rewind is new at any position.
    """
    events: list[Event] = []
    for first, lines in appends:
        if first > position + 1 or not lines:
            return None
        new = events_after([Event(first + offset, line) for offset, line in enumerate(lines)], position)
        if new:
            events += new
            position = new[-1].sequence
    return events


def events_after(events: list[Event], position: int) -> list[Event]:
    """Return the events above `position`, or from the first one on that announces a rewind."""
    for index, event in enumerate(events):
        if event.sequence > position or event.type == REWOUND:
            return events[index:]
    return []


def _reset_active(followers: set[Follower]) -> bool:
    """Return whether any follower has received an append since the last call."""
    active = any(follower.active for follower in followers)
    for follower in followers:
        follower.active = False
    return active
