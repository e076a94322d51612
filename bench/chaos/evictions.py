"""Faults of Redis as a cache: parts of running journals are evicted, a few at a time or all of them."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from random import Random

import redis

from bench.chaos.stack import ChaosStack
from models.journal.keys import PREFIX, STREAM_PREFIX
from models.journal.shards import shard_keys
from models.platform.redis_client import connect
from ops.embedded_servers import memory_share

#: The share of the keys of a kind that are evicted at once.
SHARE = 0.5

#: Bytes that Valkey may use while it evicts, beside those of an empty one.
MEMORY = 1_000_000

#: Which keys are evicted is random, and not repeated by the same seed: the keys are not the same either.
RANDOM = Random()


@contextmanager
def valkey(stack: ChaosStack) -> Iterator[redis.Redis]:
    """Connect to Valkey directly. Its being down is no error: then there is nothing to evict."""
    with closing(connect(stack.servers.valkey.url)) as client:
        try:
            yield client
        except redis.RedisError:
            return


def evict_matching(pattern: str) -> Callable[[ChaosStack, str], None]:
    """Return a step that deletes some of the keys that match a pattern."""

    def step(stack: ChaosStack, target: str) -> None:
        with valkey(stack) as client:
            evict(client, [key for key in client.scan_iter(pattern, count=1000) if RANDOM.random() < SHARE])

    return step


def evict(client: redis.Redis, keys: list[bytes]) -> None:
    """Delete keys."""
    if keys:
        client.delete(*keys)


evict_hashes = evict_matching(f"{PREFIX}*")
evict_streams = evict_matching(f"{STREAM_PREFIX}*")


def evict_shards(stack: ChaosStack, target: str) -> None:
    """Delete a shard stream."""
    with valkey(stack) as client:
        evict(client, [RANDOM.choice(shard_keys()).encode()])


def limit_memory(stack: ChaosStack, target: str) -> None:
    """Make Valkey evict whatever it used least recently."""
    with valkey(stack) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", int(client.info("memory")["used_memory_startup"]) + MEMORY)


def unlimit_memory(stack: ChaosStack, target: str) -> None:
    """Let Valkey keep everything again, up to the limit with which it was started."""
    with valkey(stack) as client:
        client.config_set("maxmemory", memory_share())
        client.config_set("maxmemory-policy", "noeviction")
