"""Read the shard streams, through which Redis announces every append of every job."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio

from models.journal import journal

log = logging.getLogger(__name__)

#: Appends that one read takes from a shard at most.
READ_COUNT = 512

#: Milliseconds that a read of the shards blocks, and seconds between two checks whether it can see new entries.
BLOCK = 5000
CURSOR_CHECK_INTERVAL = 5.0

#: Seconds between attempts to reconnect.
RETRY_INTERVAL = 0.2

#: Errors of a lost connection. uvloop raises RuntimeError when it writes to a reset one, and redis-py passes it on.
CONNECTION_ERRORS = (redis.RedisError, OSError, RuntimeError)

#: The fields of a shard's entry.
Fields = dict[bytes, bytes]


class ShardReader:
    """Passes each new entry of the shards to `on_entry`, and calls `on_loss` when entries may have been missed."""

    def __init__(self, url: str, on_entry: Callable[[Fields], None], on_loss: Callable[[], None]) -> None:
        # Any: redis-py's type hints are unions of the results of all protocol versions.
        self._client: Any = redis.asyncio.Redis.from_url(url, protocol=2, socket_timeout=None)
        self._on_entry = on_entry
        self._on_loss = on_loss
        self.reading = asyncio.Event()

    async def run(self) -> None:
        """Read the shards for ever."""
        while True:
            try:
                cursors = await self._newest_ids()
                self._on_loss()  # events may have been appended, or lost, while nothing was read
                self.reading.set()
                await self._read_from(cursors)
            except CONNECTION_ERRORS as error:
                log.warning("Stream reader lost its connection to Redis; reconnecting: %s", error)
                self.reading.set()  # do not delay the start of the process while Redis is down
            except Exception:
                log.exception("Stream reader failed; reconnecting")
            await self._wait_for_redis()

    async def _read_from(self, cursors: dict[str, str]) -> None:
        """Pass new entries on until they may be invisible behind the cursors.

        Ids are times of the server. A promoted replica may lack the last entries, and its clock may be behind: then the
        ids of new entries are below the cursors for as long.
        """
        check_at = time.monotonic() + CURSOR_CHECK_INTERVAL
        while True:
            for shard, entries in await self._client.xread(cursors, count=READ_COUNT, block=BLOCK) or ():
                cursors[shard.decode()] = entries[-1][0].decode()
                for _, fields in entries:
                    self._on_entry(fields)
            if time.monotonic() >= check_at:
                newest = await self._newest_ids()
                if any(parse_id(newest[shard]) < parse_id(cursors[shard]) for shard in cursors):
                    log.warning("Redis has lost the newest entries of its event streams; reading them from their end")
                    return
                check_at = time.monotonic() + CURSOR_CHECK_INTERVAL

    async def _newest_ids(self) -> dict[str, str]:
        """Return the id of each shard's newest entry, to read on from there."""
        cursors = {}
        for shard in journal.shard_keys():
            newest = await self._client.xrevrange(shard, count=1)
            cursors[shard] = newest[0][0].decode() if newest else "0-0"
        return cursors

    async def _wait_for_redis(self) -> None:
        while True:
            await asyncio.sleep(RETRY_INTERVAL)
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self._client.ping()
                break

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def parse_id(entry_id: str) -> tuple[int, int]:
    """Parse the id of a stream's entry, for comparisons."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
