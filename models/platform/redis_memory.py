"""How much room a Redis server has left, for writes that it can do without."""

import time
from typing import NamedTuple

import redis

#: Part of `maxmemory` from which the server counts as short of memory. The rest is for running jobs, messages and rate
#: limits, without which no job would end and free its part.
SHORT = 0.75

#: Seconds for which an answer counts.
MAX_AGE = 1.0


class RedisMemory:
    """The memory of one server, asked for at most once a second."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._asked = -MAX_AGE
        self._short = False

    def is_short(self) -> bool:
        """Return whether the server has used most of its memory; False where it has no limit or does not say."""
        now = time.monotonic()
        if now - self._asked >= MAX_AGE:
            self._asked = now
            self._short = self._read()
        return self._short

    def _read(self) -> bool:
        memory = read_memory(self._client)
        return memory is not None and 0 < SHORT * memory.limit < memory.used


class Memory(NamedTuple):
    """The bytes that a server uses, and that it may use; 0: without a limit."""

    used: int
    limit: int


def read_memory(client: redis.Redis) -> Memory | None:
    """Ask a server for its memory; None while it is unavailable."""
    try:
        memory = client.info("memory")
    except redis.RedisError:
        return None
    return Memory(int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0)))
