"""Measure how many tokens are generated per second, by reading the journals as web processes do.

So it needs no process's metrics: Redis announces every append of every job, wherever it runs.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import redis

from models.journal.keys import stream_key
from models.journal.shards import shard_entry_job, shard_keys
from models.platform.redis_client import is_cluster

#: Announcements that are read from a shard at a time, and entries of a job's stream. Beyond these a rate is too low.
MAX_ANNOUNCED, MAX_ENTRIES = 4_096, 4_096


class TokenRates:
    """Counts the tokens since its last look, by job."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._tagged = is_cluster(client)
        self._cursors = {key: self._newest(key) for key in shard_keys()}
        self._read_to: dict[str, int] = {}
        self._looked_at = clock()

    def look(self) -> Mapping[str, float]:
        """Return the tokens per second since the last look, by job. Raises redis.RedisError."""
        tokens = Counter[str]()
        first_by_job = self._announced()
        for job_id, first in first_by_job.items():
            tokens[job_id] += self._tokens_from(job_id, max(first, self._read_to.get(job_id, 0)))
        self._read_to = {job_id: last for job_id, last in self._read_to.items() if job_id in first_by_job}
        now = self._clock()
        seconds, self._looked_at = now - self._looked_at, now
        return {job_id: count / seconds for job_id, count in tokens.items() if count and seconds > 0}

    def _newest(self, key: str) -> bytes:
        newest: Sequence[tuple[bytes, object]] = self._client.xrevrange(key, count=1)  # type: ignore[assignment]
        return newest[0][0] if newest else b"0-0"

    def _announced(self) -> dict[str, int]:
        """Return the jobs with new events, and the sequence number of the first of them."""
        first_by_job = dict[str, int]()
        for key in shard_keys():  # one by one: in Redis Cluster they are on several nodes
            for entry_id, fields in self._entries(key, b"(" + self._cursors[key], MAX_ANNOUNCED):
                self._cursors[key] = entry_id
                if fields and fields[b"j"]:
                    first_by_job.setdefault(shard_entry_job(fields), int(fields[b"s"]))
        return first_by_job

    def _tokens_from(self, job_id: str, first: int) -> int:
        """Return the tokens of a job's events from a sequence number on. The entry of event n has the id `n + 1`."""
        key = stream_key(job_id, tagged=self._tagged)
        tokens = 0
        for entry_id, fields in self._entries(key, b"%d-0" % (first + 1), MAX_ENTRIES):
            tokens += int(fields.get(b"n", 0))
            self._read_to[job_id] = int(entry_id.split(b"-")[0])
        return tokens

    def _entries(self, key: str, first: bytes, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return cast(list[tuple[bytes, dict[bytes, bytes]]], self._client.xrange(key, min=first, count=count))
