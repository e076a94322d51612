"""Read the shard streams, through which Redis announces every append of every job."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import RedisClusterException

from models.journal.shards import shard_keys
from models.platform.metrics import STREAM_DELIVERY
from models.platform.redis_client import close_async, connect_async, is_cluster
from models.platform.redis_url import is_cluster_url

log = logging.getLogger(__name__)

#: Appends that one read takes from a shard at most.
READ_COUNT = 512

#: Milliseconds that a read of the shards blocks, and seconds between two checks whether it can see new entries.
BLOCK = 5000
CURSOR_CHECK_INTERVAL = 5.0

#: Seconds between attempts to reconnect.
RETRY_INTERVAL = 0.2

#: Errors of a lost connection. uvloop raises RuntimeError when it writes to a reset one, and redis-py passes it on. It
#: raises AttributeError itself when another task closes the connections of a cluster, of which it has found new nodes.
CONNECTION_ERRORS = (redis.RedisError, RedisClusterException, OSError, RuntimeError, AttributeError)

#: The fields of a shard's entry, and new entries by shard.
Fields = dict[bytes, bytes]
Entries = Iterable[tuple[bytes, Sequence[tuple[bytes, Fields]]]]


class ShardReader:
    """Passes each new entry of the shards to `on_entry`, and calls `on_loss` when entries may have been missed.

    `on_entry` returns whether the entry's job has followers here.

    One blocking read waits for all shards. In Redis Cluster, where they are on several nodes, each has its own.
    """

    def __init__(self, url: str, on_entry: Callable[[Fields], bool], on_loss: Callable[[], None]) -> None:
        self._on_entry = on_entry
        self._on_loss = on_loss
        keys = shard_keys()
        groups = [[key] for key in keys] if is_cluster_url(url) else [keys]
        # A client each: redis-py closes all connections of a client of a cluster when one of them is lost.
        self._readers = [(connect_async(url, timeout=None), group) for group in groups]
        self._starting = len(groups)
        self.reading = asyncio.Event()

    async def run(self) -> None:
        """Read the shards for ever."""
        await asyncio.gather(*(self._run(client, keys) for client, keys in self._readers))

    async def close(self) -> None:
        """Close the connections."""
        for client, _ in self._readers:
            await close_async(client)

    async def _run(self, client: Any, keys: Sequence[str]) -> None:
        starting = True
        while True:
            try:
                cursors = await _newest_ids(client, keys)
                self._on_loss()  # events may have been appended, or lost, while nothing was read
                starting = starting and self._note_start()
                await self._read_from(client, cursors)
            except CONNECTION_ERRORS as error:
                log.warning("Stream reader lost its connection to Redis; reconnecting: %s", error)
                starting = starting and self._note_start()  # a process starts also while Redis is down
            except Exception:
                log.exception("Stream reader failed; reconnecting")
            await _wait_for_redis(client, keys)

    def _note_start(self) -> bool:
        self._starting -= 1
        if self._starting == 0:
            self.reading.set()
        return False

    async def _read_from(self, client: Any, cursors: dict[str, str]) -> None:
        """Pass new entries on until they may be invisible behind the cursors.

        Ids are times of the server. A promoted replica may lack the last entries, and its clock may be behind: then the
        ids of new entries are below the cursors for as long.
        """
        check_at = time.monotonic() + CURSOR_CHECK_INTERVAL
        async with _connection(client) as connection:
            while True:
                for shard, entries in await _read(client, connection, cursors):
                    cursors[shard.decode()] = entries[-1][0].decode()
                    followed = [self._on_entry(fields) for _, fields in entries]
                    if any(followed):
                        # After the wakened followers, which write to their clients without waiting.
                        asyncio.get_running_loop().call_soon(_observe_delivery, entries[-1][0])
                if time.monotonic() >= check_at:
                    newest = await _newest_ids(client, list(cursors))
                    if any(parse_id(newest[shard]) < parse_id(cursors[shard]) for shard in cursors):
                        log.warning("Redis has lost the newest entries of its event streams; reading from their end")
                        return
                    check_at = time.monotonic() + CURSOR_CHECK_INTERVAL


@contextlib.asynccontextmanager
async def _connection(client: Any) -> AsyncIterator[Any]:
    """Take one connection for all reads, since taking one for each costs as much as the read; none in a cluster."""
    if is_cluster(client):
        yield None
        return
    connection = await client.connection_pool.get_connection()
    try:
        yield connection
    finally:
        await client.connection_pool.release(connection)


async def _read(client: Any, connection: Any, cursors: dict[str, str]) -> Entries:
    """Read the next entries. redis-py would ask a cluster on each read which of its arguments are keys."""
    command = ["XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK, "STREAMS", *cursors, *cursors.values()]
    if connection is None:
        (key,) = cursors
        return await client.execute_command(*command, target_nodes=client.get_node_from_key(key)) or ()
    await connection.send_command(*command)
    return await client.parse_response(connection, "XREAD") or ()


async def _newest_ids(client: Any, keys: Sequence[str]) -> dict[str, str]:
    """Return the id of each shard's newest entry, to read on from there."""
    cursors = {}
    for shard in keys:
        newest = await client.xrevrange(shard, count=1)
        cursors[shard] = newest[0][0].decode() if newest else "0-0"
    return cursors


async def _wait_for_redis(client: Any, keys: Sequence[str]) -> None:
    while True:
        await asyncio.sleep(RETRY_INTERVAL)
        with contextlib.suppress(*CONNECTION_ERRORS):
            await client.exists(keys[0])
            return


def _observe_delivery(entry_id: bytes) -> None:
    """Count how long ago an entry was written, by the clock of Redis."""
    written_at = parse_id(entry_id.decode())[0] / 1000
    STREAM_DELIVERY.observe(max(0.0, time.time() - written_at))


def parse_id(entry_id: str) -> tuple[int, int]:
    """Parse the id of a stream's entry, for comparisons."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
