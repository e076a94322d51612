"""Connections and services that one web process shares between its requests."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from models.platform.compatibility import Compatibility
from models.platform.database import Database
from models.platform.object_store import ObjectStore
from models.platform.redis_client import connect
from models.platform.secrets import Cipher, load_secret_key
from models.platform.settings import Settings
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.accounts.login_limits import LoginLimiter
from tasks.queue import Queue
from web.access.gate import DatabaseGate, Gate
from web.access.hashing_pool import HashingPool
from web.access.idempotency import Idempotency
from web.access.oidc_client import OidcClient
from web.access.rate_limits import Limiter
from web.http.documents import CachedDocument
from web.http.metrics import Metrics
from web.streams.sse import OpenStreams
from web.streams.tail import Tail

#: Connections to Postgres: a request holds one for a few milliseconds, never while it waits for anything else.
CONNECTIONS = 16

#: Seconds that a request waits for Redis: whatever it reads there is in Postgres too.
REDIS_TIMEOUT = 1.5


@dataclass(slots=True)
class Platform:
    """Opened when the process starts, closed when it ends.

    openapi  the OpenAPI document of the mounted routes
    checks   readiness checks by name: each returns when its part works and raises when it does not
    facts    shown beside the checks, without influence on readiness
    """

    settings: Settings
    database: Database
    redis: "redis.Redis"
    tokens: AccessTokens
    gate: Gate
    metrics: Metrics
    queue: Queue
    tail: Tail
    objects: ObjectStore
    idempotency: Idempotency
    oidc: OidcClient
    openapi: CachedDocument
    compatibility: Compatibility = field(init=False)
    login_limiter: LoginLimiter = field(init=False)
    hashing: HashingPool = field(default_factory=HashingPool)
    streams: OpenStreams = field(default_factory=OpenStreams)
    started: int = field(default_factory=lambda: int(time.time()))
    checks: dict[str, Callable[[], object]] = field(default_factory=dict)
    facts: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.compatibility = Compatibility(self.database)
        self.login_limiter = LoginLimiter(self.redis)

    @classmethod
    def open(cls, settings: Settings, tokens: AccessTokens, metrics: Metrics, openapi: CachedDocument) -> "Platform":
        """Create all parts without waiting for any server."""
        client = connect(settings.redis_address, timeout=REDIS_TIMEOUT)
        database = Database.open(settings, size=CONNECTIONS, name="web")
        secret = load_secret_key(settings)
        return cls(
            settings,
            database,
            client,
            tokens,
            gate=DatabaseGate(
                database,
                tokens,
                Limiter(client, settings.visits_per_minute),
                # With a public URL or trusted proxies, a proxy on this machine may forward requests from anywhere.
                trusts_loopback=settings.public_url is None and settings.trusted_proxies is None,
            ),
            metrics=metrics,
            queue=Queue(settings, database, client),
            tail=Tail(settings.redis_address, database),
            objects=ObjectStore.open(settings),
            idempotency=Idempotency(database, Cipher(secret, "idempotency")),
            oidc=OidcClient(settings.oidc_providers, client, secret),
            openapi=openapi,
        )

    def close_streams(self) -> None:
        """End every open stream, so that its client reconnects to another process. Call it on the event loop."""
        self.streams.close()

    def close(self) -> None:
        """Close all connections."""
        self.queue.close()
        self.redis.close()
        self.database.close()
