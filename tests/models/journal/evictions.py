"""Evictions of parts of a journal."""

from typing import Literal

import redis

from models.journal.keys import hash_key, stream_key
from models.journal.shards import shard_keys


def evict(redis_client: redis.Redis, job_id: str, part: Literal["fence", "hash", "stream", "both", "shards"]) -> None:
    """Delete a part of a journal, as Redis does when its memory is full; `both` are the hash and the stream."""
    if part == "fence":
        redis_client.hdel(hash_key(job_id), "fence")
    if part in ("hash", "both"):
        redis_client.delete(hash_key(job_id))
    if part in ("stream", "both"):
        redis_client.delete(stream_key(job_id))
    if part == "shards":
        redis_client.delete(*shard_keys())
