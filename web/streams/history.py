"""Read the history of followed jobs from Redis, and what Redis lacks from the archive, by pages of bounded bytes."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from models.journal.archive import read_first_event
from models.journal.events import REWOUND, Event
from models.journal.journal import REWOUND_FIELD
from models.journal.keys import hash_key, stream_key
from models.journal.pages import PAGE_BYTES, READ_STREAM, Page, parse_page, read_archived_page
from models.platform.database import Database
from models.platform.errors import Unavailable
from models.platform.redis_client import close_async, connect_async, is_cluster
from web.http.threads import run_in_thread
from web.streams.first_events import FirstEvents
from web.streams.shard_reader import CONNECTION_ERRORS
from web.streams.unsent import Held

#: Reads of histories at once, and seconds that a read may wait for a connection or for Redis.
CONNECTIONS = 16
TIMEOUT = 10.0

#: Bytes of a first event from which it may have fields that later ones lack.
MIN_KEPT = 768


class History:
    """Reads events that Redis or the archive has. `on_unread` is called with a job that Redis could not deliver."""

    def __init__(self, url: str, database: Database, on_unread: Callable[[str], None]) -> None:
        self._client = connect_async(url, timeout=TIMEOUT)
        self._tagged = is_cluster(self._client)
        self._free_connections = asyncio.Semaphore(CONNECTIONS)
        self._database = database
        self._on_unread = on_unread
        self._first_events = FirstEvents()

    async def close(self) -> None:
        """Close the connections."""
        await close_async(self._client)

    async def page(self, job_id: str, after: int, held: Held) -> Page:
        """Read the next present events above `after`, once the account's streams may hold more bytes."""
        held.set(0)
        while True:
            await held.wait_for_room()
            async with self._free_connections:
                if held.may_read:  # others may have read meanwhile
                    page = await self._page(job_id, after)
                    held.set(page.size)
                    return page

    async def rewinds(self, job_id: str, after: int, last: int, held: Held) -> list[Event]:
        """Read the events above `after` and up to `last` that announce a rewind."""
        rewinds: list[Event] = []
        while True:
            page = await self.page(job_id, after, held)
            rewinds += [event for event in page.events if event.type == REWOUND and event.sequence <= last]
            if not page.more or page.events[-1].sequence >= last:
                return rewinds
            after = page.events[-1].sequence

    async def rewound_at(self, job_id: str) -> int | None:
        """Return the sequence number of the first rewind in Redis; None without one, or if Redis does not respond."""
        try:
            async with asyncio.timeout(TIMEOUT):
                value = await self._client.hget(hash_key(job_id, tagged=self._tagged), REWOUND_FIELD)
        except CONNECTION_ERRORS:
            self._on_unread(job_id)
            return None
        return int(value) if value else None

    async def probe(self, job_id: str) -> None:
        """Read from Redis. Raises one of CONNECTION_ERRORS if it does not respond."""
        await self._entries(job_id, -1, limit=1)

    async def first_event(self, job_id: str) -> Event:
        """Return the first event of a journal. Raises Unavailable if it is not to be found."""
        event = self._first_events.get(job_id) or await self._read_first_event(job_id)
        if event is None:  # the job has just been deleted
            raise Unavailable("the first event of its journal cannot be found")
        self._first_events.keep(job_id, event)
        return event

    def keep_first_event(self, job_id: str, event: Event) -> None:
        """Keep a journal's first event, if it may have fields that its streams need again."""
        if len(event.data) >= MIN_KEPT:
            self._first_events.keep(job_id, event)

    def forget(self, job_id: str) -> None:
        """Forget the first event of a job that no stream follows any more."""
        self._first_events.forget(job_id)

    async def _page(self, job_id: str, after: int) -> Page:
        try:
            recent = parse_page(await self._entries(job_id, after), PAGE_BYTES)
        except CONNECTION_ERRORS:
            self._on_unread(job_id)
            recent = Page([])
        if recent.events and recent.events[0].sequence == after + 1:
            return recent
        archived = await run_in_thread(self._archived, job_id, after)
        # Redis may have the events after the archived ones, which the next page tells.
        return Page(archived.events, more=bool(archived.events) and (archived.more or bool(recent.events)))

    async def _read_first_event(self, job_id: str) -> Event | None:
        with contextlib.suppress(*CONNECTION_ERRORS):
            async with self._free_connections:
                if reply := await self._entries(job_id, -1, last="1-0"):
                    return parse_page(reply, 0).events[0]
        return await run_in_thread(self._first_archived, job_id)

    async def _entries(self, job_id: str, after: int, last: str = "+", limit: int = PAGE_BYTES) -> Any:
        key = stream_key(job_id, tagged=self._tagged)
        async with asyncio.timeout(TIMEOUT):
            return await self._client.eval(READ_STREAM, 1, key, f"{after + 2}-0", last, limit)

    def _first_archived(self, job_id: str) -> Event | None:
        with self._database.connection() as connection:
            return read_first_event(connection, job_id)

    def _archived(self, job_id: str, after: int) -> Page:
        try:
            with self._database.connection() as connection:
                return read_archived_page(connection, job_id, after)
        except Unavailable:
            return Page([])
