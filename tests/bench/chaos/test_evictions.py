"""Given a running journal, when Valkey evicts a part of it, then that part is gone."""

from types import SimpleNamespace

import pytest
import redis

from bench.chaos import evictions
from models.journal.keys import hash_key, stream_key
from models.journal.shards import shard_keys
from models.platform.ids import new_id
from ops.embedded_servers import Valkey


@pytest.fixture
def stack(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stack with the tests' Valkey, of which all keys are evicted."""
    monkeypatch.setattr(evictions, "SHARE", 1.1)
    return SimpleNamespace(servers=SimpleNamespace(valkey=valkey))


def test_the_parts_of_a_journal_are_evicted(stack, redis_client: redis.Redis):
    job_id = new_id("job")
    redis_client.hset(hash_key(job_id), "fence", 1)
    redis_client.xadd(stream_key(job_id), {"e": "{}"})

    evictions.evict_hashes(stack, "valkey")
    assert not redis_client.exists(hash_key(job_id))
    assert redis_client.exists(stream_key(job_id))

    evictions.evict_streams(stack, "valkey")
    assert not redis_client.exists(stream_key(job_id))


def test_a_shard_is_evicted(stack, redis_client: redis.Redis):
    keys = shard_keys()
    for key in keys:
        redis_client.xadd(key, {"e": ""})

    evictions.evict_shards(stack, "valkey")

    assert redis_client.exists(*keys) == len(keys) - 1


def test_memory_is_limited_for_a_while(stack, redis_client: redis.Redis):
    evictions.limit_memory(stack, "valkey")
    limited = redis_client.config_get("maxmemory*")
    evictions.unlimit_memory(stack, "valkey")

    assert (int(limited["maxmemory"]) > 0, limited["maxmemory-policy"]) == (True, "allkeys-lru")
    assert redis_client.config_get("maxmemory*")["maxmemory-policy"] == "noeviction"


def test_a_dead_valkey_evicts_nothing(stack):
    stack.servers = SimpleNamespace(valkey=SimpleNamespace(url="unix:///nowhere/valkey.sock"))

    evictions.evict_hashes(stack, "valkey")
