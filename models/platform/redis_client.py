"""Create Redis clients that survive a restart of the server, and the failover to a replica."""

from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from models.platform.redis_cluster import ClusterClient
from models.platform.redis_url import RedisUrl, parse_redis_url

#: Retries of a lost connection, and the seconds between them; callers that can wait longer retry themselves. A time-out
#: is not retried.
RETRIES = 4
RETRY_DELAY = 0.05

#: Seconds that a reply may take, and that connecting may take.
TIMEOUT = 5.0
CONNECT_TIMEOUT = 2


#: Errors of a server that cannot be reached, or that refuses writes: its memory is full, or it is a replica.
OUTAGES = (redis.ConnectionError, redis.TimeoutError, redis.OutOfMemoryError, redis.ReadOnlyError)


def is_outage(error: redis.RedisError) -> bool:
    """Return whether a command failed because of the server's state, and may succeed later."""
    return isinstance(error, OUTAGES) or str(error).startswith("MISCONF")  # its disk is full


def connect(url: str, *, timeout: float = TIMEOUT) -> redis.Redis:
    """Create a client with a connection pool that returns bytes. It connects on first use."""
    retry = Retry(ConstantBackoff(RETRY_DELAY), RETRIES, supported_errors=(redis.ConnectionError,))
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "retry": retry,
        "protocol": 2,
    }
    parsed = parse_redis_url(url)
    if parsed is None:
        return redis.Redis.from_url(url, **options)
    if parsed.kind == "cluster":
        return cast(redis.Redis, ClusterClient(parsed.hosts, {**parsed.options, **options}))
    sentinel = redis.sentinel.Sentinel(
        parsed.hosts, sentinel_kwargs=_sentinel_options(parsed), **parsed.options, **options
    )
    connection_class = _SSLSentinelConnection if parsed.options.get("ssl") else _SentinelConnection
    return cast(redis.Redis, sentinel.master_for(parsed.service, connection_class=connection_class))


class _SentinelConnection(redis.sentinel.SentinelManagedConnection):
    """A connection that is closed when a reply does not arrive in time.

    redis-py's own stays open (redis 8.1; its other connections, also those of the event loop, are closed). Then the
    late reply would be taken for that of the next command, which may be another caller's.
    """

    def read_response(self, *arguments: Any, disconnect_on_error: bool | None = True, **options: Any) -> Any:
        return super().read_response(*arguments, disconnect_on_error=disconnect_on_error, **options)


class _SSLSentinelConnection(_SentinelConnection, redis.SSLConnection):
    pass


def connect_async(url: str, *, timeout: float | None) -> Any:
    """Create a client for the event loop; without a time-out its commands may block. It connects on first use.

    Any: redis-py's type hints are unions of the results of all protocol versions.
    """
    options: dict[str, Any] = {"socket_timeout": timeout, "protocol": 2}
    parsed = parse_redis_url(url)
    if parsed is None:
        return redis.asyncio.Redis.from_url(url, **options)
    if parsed.kind == "cluster":
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in parsed.hosts]
        return redis.asyncio.RedisCluster(
            startup_nodes=nodes, require_full_coverage=False, **{**parsed.options, **options}
        )
    sentinel = redis.asyncio.sentinel.Sentinel(
        parsed.hosts, sentinel_kwargs=_sentinel_options(parsed), **parsed.options, **options
    )
    return sentinel.master_for(parsed.service)


async def close_async(client: Any) -> None:
    """Close the connections of a client for the event loop, also those to the Sentinels."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()


def is_cluster(client: Any) -> bool:
    """Return whether a client is connected to a Redis Cluster, where the keys of a command must share a slot."""
    return isinstance(client, ClusterClient | redis.asyncio.RedisCluster)


def _sentinel_options(parsed: RedisUrl) -> dict[str, Any]:
    """Return the options of the connections to the Sentinels, which have no credentials."""
    tls = {name: value for name, value in parsed.options.items() if name.startswith("ssl")}
    return {"socket_timeout": CONNECT_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT, **tls}
