"""End open event streams whose credentials are no longer valid.

A request is authenticated when it begins, and a stream may be open for hours. One statement every few seconds looks up
the sessions, keys and memberships of all open streams of the process.
"""

import asyncio
from contextlib import suppress
from typing import Protocol

from psycopg import OperationalError

from models.platform.errors import Unavailable
from web.access.gate import Gate
from web.http.threads import run_in_thread
from web.streams.sse import OpenStreams

#: Seconds between two look-ups.
INTERVAL = 2.0


class Guarded(Protocol):
    """The open streams of a process, and the gate that knows their callers."""

    streams: OpenStreams
    gate: Gate


async def end_unauthorized_streams(guarded: Guarded) -> None:
    """End streams whose credentials have ended."""
    credentials = guarded.streams.credentials()
    if not credentials:
        return
    ended = await run_in_thread(guarded.gate.find_ended, credentials)
    for stream in guarded.streams.of(ended):
        stream.end()


async def guard_streams(guarded: Guarded) -> None:
    """End such streams until the task is cancelled. While the database is away they stay open."""
    while True:
        await asyncio.sleep(INTERVAL)
        with suppress(Unavailable, OperationalError):
            await end_unauthorized_streams(guarded)
