"""URLs of Redis: one server, a cluster, or a server that Sentinel names.

redis://[user:password@]host[:6379][/database]     rediss:// with TLS, unix:///path
redis+cluster://[user:password@]host:port,…        some nodes; the others are discovered
redis+sentinel://[user:password@]host:26379,…/service[/database]     the credentials are those of the servers
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from redis.connection import SSLConnection, parse_url

#: Schemes of a Redis that can be the broker too. Dramatiq's scripts use keys of several slots of a cluster.
BROKER_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
REDIS_SCHEMES = (*BROKER_SCHEMES, "redis+cluster", "rediss+cluster")

#: Ports of a server and of a Sentinel where the URL names none.
PORT, SENTINEL_PORT = 6379, 26379


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL of a cluster or of Sentinels.

    options  keyword arguments of redis-py's connections, such as the credentials
    service  the name by which Sentinel knows the servers
    """

    kind: Literal["cluster", "sentinel"]
    hosts: Sequence[tuple[str, int]]
    options: dict[str, Any] = field(default_factory=dict)
    service: str = ""


def is_cluster_url(url: str) -> bool:
    """Return whether a URL names a Redis Cluster."""
    return url.partition("://")[0].endswith("+cluster")


def parse_redis_url(url: str) -> RedisUrl | None:
    """Parse the URL of a cluster or of Sentinels; None for one server. Raises ValueError."""
    parts = urlsplit(url)
    base, _, mode = parts.scheme.partition("+")
    if mode not in ("cluster", "sentinel"):
        return None
    credentials, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if mode == "cluster":
        service, database = "", service
    options = parse_url(f"{base}://{credentials}{at}localhost/{database}?{parts.query}")
    for name in ("host", "port"):
        options.pop(name, None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if mode == "sentinel" and not service:
        raise ValueError("should name the service after the hosts, as in redis+sentinel://host:26379/mymaster")
    port = PORT if mode == "cluster" else SENTINEL_PORT
    kind: Literal["cluster", "sentinel"] = "cluster" if mode == "cluster" else "sentinel"
    return RedisUrl(kind, [_host_and_port(host, port) for host in hosts.split(",")], options, service)


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("should name a host")
    return parts.hostname, parts.port or default
