"""Following jobs: one blocked read a process hears of every event there is, and hands each to whoever follows its job.

A follower subscribes first, then reads the history, and drops what it has seen. What it misses — a gap in the numbers,
a lost connection to Redis, a silence — it reads again from Redis or from the archive. So it needs no delivery to be
perfect, only the journal to be.
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

#: Appends that may wait for a follower before it is dropped. Its client comes back with its last id.
LONGEST_QUEUE = 2048

#: Appends of those that wait which a follower gets together: they go to the client in one piece.
TOGETHER = 64

#: Appends that one read takes from a shard at most.
BATCH = 512

#: Milliseconds that a read of the shards blocks.
BLOCK = 5000

#: Seconds between two rounds that ask Postgres whether followed jobs that have been silent since have ended.
ROUND = 2.0

#: Connections for reading histories, and seconds that one read may wait for a connection or an answer.
CONNECTIONS = 16
PATIENCE = 10.0

#: Seconds after a lost connection.
RETRY_INTERVAL = 0.2

#: A lost connection. The last one is what uvloop says to writing on one that was reset, and redis-py passes on.
LOST = (redis.RedisError, OSError, RuntimeError)


class Follower:
    """One follower of one job: what it has not looked at yet. Lean, since ten thousand of them wait for nothing."""

    __slots__ = ("_waiter", "closed", "heard", "over", "stale", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[int, list[bytes]]] = []
        self.heard = True
        self.stale = False
        self.over = False
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, first: int, lines: list[bytes]) -> None:
        """Events have come; the first has the sequence number `first`."""
        if len(self.waiting) >= LONGEST_QUEUE:
            self.close()
            return
        self.waiting.append((first, lines))
        self.heard = True
        self._wake()

    def begin(self, events: Sequence[Event]) -> None:
        """What the journal begins with is known: nobody need look it up."""
        if events:
            self.waiting.insert(0, (events[0].sequence, [event.data for event in events]))
            self._wake()

    def look_again(self, *, over: bool = False) -> None:
        """Something may have been missed; `over` when the job has ended, and nothing more will come."""
        self.stale = True
        self.over = self.over or over
        self._wake()

    def close(self) -> None:
        """No more will come; the client goes on from its last id, here or elsewhere."""
        self.closed = True
        self._wake()

    def take(self) -> list[tuple[int, list[bytes]]]:
        """What waits, or the beginning of it."""
        taken, self.waiting = self.waiting[:TOGETHER], self.waiting[TOGETHER:]
        return taken

    async def wait(self) -> None:
        """Wait until there is something to look at."""
        if not (self.waiting or self.stale or self.closed):
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
        # Any: redis-py's hints name every shape that any of its protocols may answer with.
        self._reader: Any = redis.asyncio.Redis.from_url(url, protocol=2, socket_timeout=None)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, protocol=2, max_connections=CONNECTIONS, timeout=PATIENCE, socket_timeout=PATIENCE
        )
        self._client: Any = redis.asyncio.Redis.from_pool(pool)
        self._database = database
        self._followers: dict[str, set[Follower]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reading = asyncio.Event()

    async def start(self) -> None:
        """Begin to read. From here on no append is missed, but by a lost connection."""
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._rounds())]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reading.wait(), PATIENCE)

    async def stop(self) -> None:
        """Stop reading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.aclose()
        await self._client.aclose()

    def close_followers(self) -> None:
        """End all followers: the process is leaving."""
        for followers in self._followers.values():
            for follower in followers:
                follower.close()

    def subscribe(self, job_id: str) -> Follower:
        """Hear of a job from now on, which may have still to begin. Whoever calls this unsubscribes in the end."""
        follower = Follower()
        self._followers.setdefault(job_id, set()).add(follower)
        return follower

    def unsubscribe(self, job_id: str, follower: Follower) -> None:
        """Hear no more; may be said twice."""
        followers = self._followers.get(job_id, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(job_id, None)

    async def follow(
        self, job_id: str, after: int = -1, follower: Follower | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """The events of a job above the sequence number `after`, as they come, until its journal ends.

        Yields groups that came together. Ends early when the process leaves or the follower is too slow. A follower
        that has been there since before the job began, and was told how, spares the look at its history.
        """
        follower = follower or self.subscribe(job_id)
        try:
            position, events = after, await self._begin(follower, job_id, after)
            while not follower.closed:
                if events:
                    yield events
                    position = events[-1].sequence
                    if events[-1].ends:
                        return
                events = await self._next(follower, job_id, position)
        finally:
            self.unsubscribe(job_id, follower)

    async def _begin(self, follower: Follower, job_id: str, after: int) -> list[Event]:
        """What is there already, unless the follower was told how the job began."""
        if follower.waiting:
            return []
        events = await self._history(job_id, after)
        if not events:  # a client that has heard it all may well ask again
            ended = await run_in_threadpool(self._ended, [job_id])
            follower.look_again(over=job_id in ended)
        return events

    async def _next(self, follower: Follower, job_id: str, position: int) -> list[Event]:
        """What comes next after `position`, all of it that is there by now; nothing when there was only old news."""
        await follower.wait()
        if follower.waiting:
            events = joined(follower.take(), position)
            return await self._history(job_id, position) if events is None else events
        if not follower.stale:
            return []
        follower.stale = False
        events = await self._history(job_id, position)
        if follower.over and not events:
            follower.close()  # there is nothing more to hear, or its row is gone, journal and all
        return events

    async def _history(self, job_id: str, after: int) -> list[Event]:
        """The events above `after` that are there now, from Redis, and from the archive where Redis has a gap."""
        try:
            entries = await self._client.xrange(journal.stream_key(job_id), min=f"{after + 2}-0")
            recent = journal.parse_entries(entries)
        except LOST:
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
        """Read on for ever. The cursors stay good when Redis comes back, with its data or empty: ids are its clock."""
        cursors: dict[str, str] = {}
        while True:
            try:
                cursors = cursors or await self._newest()
                self._reading.set()
                for shard, entries in await self._reader.xread(cursors, count=BATCH, block=BLOCK) or ():
                    cursors[shard.decode()] = entries[-1][0].decode()
                    self._hand_out(entries)
            except LOST as error:
                log.warning("the journal's tail is lost, will be back: %s", error)
                self._reading.set()  # nobody waits for a server that is down
                await self._reconnect()
            except Exception:
                log.exception("the journal's tail stumbled and goes on")
                await self._reconnect()

    async def _newest(self) -> dict[str, str]:
        """Where each shard stands, so that reading on from there misses nothing."""
        cursors = {}
        for shard in journal.shard_keys():
            newest = await self._reader.xrevrange(shard, count=1)
            cursors[shard] = newest[0][0].decode() if newest else "0-0"
        return cursors

    async def _reconnect(self) -> None:
        """Wait until Redis is back, then have every follower read again: it may have forgotten what was on its way."""
        while True:
            await asyncio.sleep(RETRY_INTERVAL)
            with contextlib.suppress(*LOST):
                await self._reader.ping()
                break
        for followers in self._followers.values():
            for follower in followers:
                follower.look_again()

    def _hand_out(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for _, fields in entries:
            followers = self._followers.get(journal.job_id_of(fields[b"j"].decode()))
            if followers:
                _, first, lines = journal.parse_shard_entry(fields)
                for follower in followers:
                    follower.offer(first, lines)

    async def _rounds(self) -> None:
        """Look after followers that hear nothing: their job may have ended without Redis having been told."""
        while True:
            await asyncio.sleep(ROUND)
            silent = [job_id for job_id, followers in self._followers.items() if not _any_heard(followers)]
            if silent:
                for job_id in await run_in_threadpool(self._ended, silent):
                    for follower in self._followers.get(job_id, ()):
                        follower.look_again(over=True)

    def _ended(self, job_ids: Sequence[str]) -> set[str]:
        """Those that are known to have ended."""
        try:
            with self._database.connection() as connection:
                return ended_ids(connection, job_ids)
        except Unavailable:
            return set()
        except Exception:
            log.exception("can't tell which jobs have ended; the next round may")
            return set()


def joined(appends: Sequence[tuple[int, list[bytes]]], position: int) -> list[Event] | None:
    """The events of appends that are not heard at `position`; None where some are missing before or between them.

    One that tells that what was heard there has been lost counts as not heard.
    """
    events: list[Event] = []
    for first, lines in appends:
        if first > position + 1 or not lines:
            return None
        new = unseen([Event(first + place, line) for place, line in enumerate(lines)], position)
        if new:
            events += new
            position = new[-1].sequence
    return events


def unseen(events: list[Event], position: int) -> list[Event]:
    """The events above `position`; all of them where they tell that what was heard there has been lost."""
    for place, event in enumerate(events):
        if event.sequence > position or event.type == REWOUND:
            return events[place:]
    return []


def _any_heard(followers: set[Follower]) -> bool:
    heard = False
    for follower in followers:
        heard = heard or follower.heard
        follower.heard = False
    return heard
