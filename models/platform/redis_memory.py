"""How much room a Redis server has left, for writes that it can do without."""

import time

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
        try:
            memory = self._client.info("memory")
            return bool(0 < SHORT * memory.get("maxmemory", 0) < memory.get("used_memory", 0))
        except redis.RedisError:
            return False
