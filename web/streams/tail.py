"""Follow jobs: one blocking read per process receives every event of all jobs, and passes it to the job's followers.

A follower subscribes first, then reads the history, and drops the events that it has already yielded. When it may have
missed events (a gap in the numbers, a lost connection to Redis, a long silence), it reads the history again from Redis
or from the archive. So delivery may be unreliable, as long as the journal is not.

A rewind moves a follower back. One that may have missed events looks into the job's row, since it may have missed a
rewind too, and the events above its position would then be others than those that its client expects.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import datetime

from models.jobs.stream_state import ended_ids, read_rewound_at, reopen_cancelled, stale_ids
from models.journal.events import Event
from models.journal.shards import parse_shard_entry, shard_entry_job
from models.platform.database import Database
from models.platform.errors import Unavailable
from models.turns.abandoned_turns import keep_followed, list_abandoned
from web.http.threads import run_in_thread
from web.streams.completer import PART_BYTES, Completer, Part, parts
from web.streams.follower import Follower, merge_appends
from web.streams.history import History
from web.streams.shard_reader import CONNECTION_ERRORS, Fields, ShardReader
from web.streams.unsent import Held, UnsentBytes

log = logging.getLogger(__name__)

#: Seconds between two checks whether followed jobs without events since the last check have ended.
CHECK_INTERVAL = 2.0

#: Every how many of these checks it is also checked whether the archive has more events than such a job's followers.
CHECKS_PER_ARCHIVE_CHECK = 5

#: Seconds after which a task that still runs is cancelled again.
CANCEL_AGAIN = 1.0

#: Seconds that the start waits for the stream reader.
TIMEOUT = 10.0


class Tail:
    """The followers of a process and the reader that serves them all."""

    def __init__(self, url: str, database: Database) -> None:
        self._reader = ShardReader(url, self._dispatch, self._mark_all_stale)
        self._database = database
        self._followers: dict[str, set[Follower]] = {}
        self._unread: set[str] = set()  # jobs whose history Redis could not deliver
        self._history = History(url, database, self._unread.add)
        self._unsent = UnsentBytes()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start reading. From here on an append is missed only while the connection is lost."""
        self._tasks = [asyncio.create_task(self._reader.run()), asyncio.create_task(self._check_silent_jobs())]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reader.reading.wait(), TIMEOUT)

    async def stop(self) -> None:
        """Stop reading and close the connections."""
        running = set(self._tasks)
        while running:  # a cancel can get lost in a task that is handling a lost connection
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN)
        await self._reader.close()
        await self._history.close()

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
            self._history.forget(job_id)

    async def follow(
        self, job_id: str, after: int = -1, follower: Follower | None = None, *, owner: str | None = None
    ) -> AsyncGenerator[list[Event], None]:
        """Yield the events of a job above the sequence number `after`, as they arrive, until its journal ends.

        Yields batches of events that arrived together, of bounded bytes or one event. Ends early when the process shuts
        down. A `follower` that was subscribed before the job was created and has its first events needs no history.
        `owner` is the account whose client receives the events: see `web/streams/unsent.py`.
        """
        completer = Completer(job_id, self._history.first_event)
        held = Held(self._unsent, owner)
        follower = follower or self.subscribe(job_id)
        follower.position = after
        try:
            events = await self._first_events(follower, job_id, held)
            while not follower.closed:
                for part in parts(events):
                    yield await self._complete(completer, part, held)
                    follower.yielded(part.events)
                    if part.events[-1].ends:
                        return
                held.set(0)
                events = await self._next_events(follower, job_id, held)
        except Unavailable as error:
            log.warning("Ending a stream of %s, which its client will resume: %s", job_id, error)
        finally:
            held.set(0)
            self.unsubscribe(job_id, follower)

    async def present_events(self, job_id: str, *, owner: str) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events that a journal has now, by pages of bounded bytes, without waiting for others."""
        held, after = Held(self._unsent, owner), -1
        try:
            while (page := await self._history.page(job_id, after, held)).events:
                yield page.events
                if not page.more:
                    return
                after = page.events[-1].sequence
        finally:
            held.set(0)

    async def _complete(self, completer: Completer, part: Part, held: Held) -> list[Event]:
        """Complete a part, once the account's streams may hold its bytes."""
        first = part.events[0]
        if first.sequence == 0:
            self._history.keep_first_event(completer.job_id, first)
        if part.size >= PART_BYTES and part.size > held.size:
            held.set(0)
            await held.wait_for_room()
            held.set(part.size)
        return await completer.complete(part.events)

    async def _first_events(self, follower: Follower, job_id: str, held: Held) -> Sequence[Event]:
        """Read the history, unless the follower has the job's first events."""
        if follower.queue:
            return ()
        if follower.position >= 0:
            stored = await run_in_thread(self._read_rewound_at, job_id)
            follower.position = await self._resume_position(follower, job_id, stored, held)
        events = await self._page(follower, job_id, held)
        if not events:  # the client may have received all events of a job that has ended
            ended = await run_in_thread(self._ended, [job_id])
            follower.mark_stale(ended=job_id in ended)
        return events

    async def _next_events(self, follower: Follower, job_id: str, held: Held) -> Sequence[Event]:
        """Wait for events after those that were yielded; empty when the queue held only known ones."""
        if follower.reading:
            return await self._page(follower, job_id, held)
        await follower.wait()
        if follower.queue:
            merged = merge_appends(follower.pop_batch(), follower.position)
            if merged.resume is not None:
                follower.read_from(merged.resume)
            return merged.events
        if not follower.stale:
            return ()
        follower.stale = follower.behind = False
        stored = await run_in_thread(self._rewound_at, job_id)
        follower.read_from(await self._resume_position(follower, job_id, stored, held))
        events = await self._page(follower, job_id, held)
        if follower.ended and not events and not await self._reopened(follower, job_id):
            follower.close()  # the client has all events, or the job was deleted with its journal
        return events

    async def _page(self, follower: Follower, job_id: str, held: Held) -> Sequence[Event]:
        """Read the next page of the history."""
        if follower.resume is not None:
            follower.position, follower.resume = follower.resume, None  # also while the history cannot be read
        page = await self._history.page(job_id, follower.position, held)
        follower.reading = page.more
        return page.events

    async def _reopened(self, follower: Follower, job_id: str) -> bool:
        """Return whether the job goes on, since its end was below what the client has received."""
        if not await run_in_thread(self._reopen, job_id, follower.position):
            return False
        follower.ended = False
        return True

    async def _resume_position(self, follower: Follower, job_id: str, stored: int | None, held: Held) -> int:
        """Return the position from which to read events that may be missed: also those of a rewind.

        The row tells from where on events were written again (`stored`), and so does Redis, since a failover of
        Postgres may have lost that. But only the event that announces it moves a follower back: where none is in the
        journal yet, it will be appended.
        """
        known = [at for at in (stored, await self._history.rewound_at(job_id)) if at is not None]
        if not known or min(known) > follower.position:
            return follower.position
        rewinds = await self._history.rewinds(job_id, min(known) - 1, follower.position, held)
        return rewinds[0].sequence - 1 if rewinds and rewinds[-1].data != follower.rewind else follower.position

    def _rewound_at(self, job_id: str) -> int | None:
        """Return the row's `rewound_at`; None while Postgres is down."""
        with contextlib.suppress(Unavailable):
            return self._read_rewound_at(job_id)
        return None

    def _read_rewound_at(self, job_id: str) -> int | None:
        with self._database.connection() as connection:
            return read_rewound_at(connection, job_id)

    def _reopen(self, job_id: str, position: int) -> bool:
        try:
            with self._database.transaction() as connection:
                return reopen_cancelled(connection, job_id, position)
        except Unavailable:
            return False

    def _mark_all_stale(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.mark_stale()

    def _dispatch(self, fields: Fields) -> bool:
        """Pass an entry to the followers of its job. Returns whether there are any."""
        followers = self._followers.get(shard_entry_job(fields))
        if not followers:
            return False
        append = parse_shard_entry(fields)
        for follower in followers:
            follower.push(append)
        return True

    async def _check_silent_jobs(self) -> None:
        """Wake the followers that miss an event which Redis has not delivered, periodically for ever."""
        for number in itertools.count(1):
            await asyncio.sleep(CHECK_INTERVAL)
            await self._read_again()
            await self._keep_followed()
            silent = [job_id for job_id, followers in self._followers.items() if not _reset_active(followers)]
            if silent:
                self._mark_stale(await run_in_thread(self._ended, silent), ended=True)
            if silent and number % CHECKS_PER_ARCHIVE_CHECK == 0:
                positions = {job_id: self._lowest_position(job_id) for job_id in silent}
                self._mark_stale(await run_in_thread(self._behind, positions))

    async def _keep_followed(self) -> None:
        """Keep turns with a client of this process from being cancelled after another client has disconnected."""
        if not self._followers:
            return
        abandoned = await run_in_thread(self._list_abandoned)
        # A client that disconnects unsubscribes first, so turns that are followed now have another client.
        if followed := {job_id: time for job_id, time in abandoned.items() if job_id in self._followers}:
            await run_in_thread(self._keep, followed)

    def _list_abandoned(self) -> Mapping[str, datetime]:
        try:
            with self._database.connection() as connection:
                return list_abandoned(connection)
        except Unavailable:
            return {}
        except Exception:
            log.exception("Cannot list the abandoned turns; retrying in %g s", CHECK_INTERVAL)
            return {}

    def _keep(self, followed: Mapping[str, datetime]) -> None:
        try:
            with self._database.connection() as connection:
                keep_followed(connection, followed)
        except Unavailable:
            return
        except Exception:
            log.exception("Cannot keep the abandoned turns that are followed; retrying in %g s", CHECK_INTERVAL)

    async def _read_again(self) -> None:
        """Wake the followers of jobs whose history could not be read, as soon as Redis responds again."""
        if self._unread:
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self._history.probe(next(iter(self._unread)))
                unread = [*self._unread]
                self._unread.clear()
                self._mark_stale(unread)

    def _mark_stale(self, job_ids: Iterable[str], *, ended: bool = False) -> None:
        for job_id in job_ids:
            for follower in self._followers.get(job_id, ()):
                follower.mark_stale(ended=ended)

    def _lowest_position(self, job_id: str) -> int:
        return min((follower.position for follower in self._followers.get(job_id, ())), default=-1)

    def _behind(self, positions: Mapping[str, int]) -> Sequence[str]:
        """Return those running jobs whose archive is beyond these positions, or which were rewound at or below them."""
        try:
            with self._database.connection() as connection:
                return stale_ids(connection, positions)
        except Unavailable:
            return []
        except Exception:
            log.exception("Cannot check which followers are behind the archive; retrying later")
            return []

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


def _reset_active(followers: set[Follower]) -> bool:
    """Return whether any follower has received an append since the last call."""
    active = any(follower.active for follower in followers)
    for follower in followers:
        follower.active = False
    return active
