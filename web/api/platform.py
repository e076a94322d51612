"""Connections and services that one web process shares between its requests."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from models.platform.compatibility import Compatibility
from models.platform.database import Database
from models.platform.exposition import Exposition
from models.platform.object_store import ObjectStore
from models.platform.redis_client import connect
from models.platform.secrets import Cipher, load_secret_key
from models.platform.settings import Settings
from models.serving.state import ServingCache
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.accounts.login_limits import LoginLimiter
from pipelines.billing.gateways.registry import Gateways
from pipelines.inference.registry import default_description
from pipelines.routing.enqueue import NewTurnRouting
from tasks.queue import Queue
from web.access.gate import DatabaseGate, Gate
from web.access.hashing_pool import HashingPool
from web.access.idempotency import Idempotency
from web.access.oidc_client import OidcClient
from web.access.rate_limits import Limiter
from web.access.shares import Shares
from web.http.documents import CachedDocument
from web.http.loop_watchdog import LoopWatchdog
from web.http.uploads import OpenUploads
from web.streams.process_lease import ProcessLease
from web.streams.sse import OpenStreams
from web.streams.tail import Tail

#: Connections to Postgres: a request holds one for a few milliseconds, never while it waits for anything else. The gate
#: and the relay have their own, so that slow requests keep nobody from being admitted, and no job from being published.
CONNECTIONS, GATE_CONNECTIONS, RELAY_CONNECTIONS = 16, 4, 2

#: Blocking endpoints of one account that run at a time: half of the connections.
ACCOUNT_CALLS = CONNECTIONS // 2

#: Seconds that a request waits for Redis: whatever it reads there is in Postgres too.
REDIS_TIMEOUT = 1.5


@dataclass(slots=True)
class Platform:
    """Opened when the process starts, closed when it ends.

    calls           the blocking endpoints of each account
    memory_changes  the changes of each user's memories, which hold the lock of their space
    schema_checks   the requests of each account whose JSON Schemas are checked
    others          further databases to close: those of the gate and the relay
    openapi  the OpenAPI document of the mounted routes
    checks   readiness checks by name: each returns when its part works and raises when it does not
    facts    shown beside the checks, without influence on readiness
    """

    settings: Settings
    database: Database
    redis: "redis.Redis"
    tokens: AccessTokens
    gate: Gate
    metrics: Exposition
    queue: Queue
    tail: Tail
    objects: ObjectStore
    idempotency: Idempotency
    oidc: OidcClient
    openapi: CachedDocument
    compatibility: Compatibility = field(init=False)
    login_limiter: LoginLimiter = field(init=False)
    lease: ProcessLease = field(init=False)
    gateways: Gateways = field(init=False)
    serving: ServingCache = field(init=False)
    routing: NewTurnRouting = field(init=False)
    hashing: HashingPool = field(default_factory=HashingPool)
    streams: OpenStreams = field(default_factory=OpenStreams)
    uploads: OpenUploads = field(default_factory=OpenUploads)
    calls: Shares = field(default_factory=lambda: Shares(ACCOUNT_CALLS))
    memory_changes: Shares = field(default_factory=lambda: Shares(1))
    schema_checks: Shares = field(default_factory=lambda: Shares(1))
    watchdog: LoopWatchdog = field(default_factory=LoopWatchdog)
    others: Sequence[Database] = ()
    started: int = field(default_factory=lambda: int(time.time()))
    checks: dict[str, Callable[[], object]] = field(default_factory=dict)
    facts: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.compatibility = Compatibility(self.database)
        self.login_limiter = LoginLimiter(self.redis)
        self.lease = ProcessLease(self.database)
        self.gateways = Gateways(self.settings, self.database)
        fallback = partial(default_description, self.settings)
        self.serving = ServingCache(self.database, fallback, explicit=self.settings.default_model is not None)
        self.routing = NewTurnRouting(self.settings, self.serving)

    @classmethod
    def open(cls, settings: Settings, tokens: AccessTokens, metrics: Exposition, openapi: CachedDocument) -> "Platform":
        """Create all parts without waiting for any server."""
        client = connect(settings.redis_address, timeout=REDIS_TIMEOUT)
        database = Database.open(settings, size=CONNECTIONS, name="web")
        gate_database = Database.open(settings, size=GATE_CONNECTIONS, name="web gate")
        relay_database = Database.open(settings, size=RELAY_CONNECTIONS, name="web relay")
        secret = load_secret_key(settings)
        return cls(
            settings,
            database,
            client,
            tokens,
            gate=DatabaseGate(
                gate_database,
                tokens,
                Limiter(client, settings.visits_per_minute),
                # With a public URL or trusted proxies, a proxy on this machine may forward requests from anywhere.
                trusts_loopback=settings.public_url is None and settings.trusted_proxies is None,
                metrics_token=settings.metrics_token,
            ),
            metrics=metrics,
            queue=Queue(settings, relay_database, client),
            tail=Tail(settings.redis_address, database),
            objects=ObjectStore.open(settings),
            idempotency=Idempotency(database, Cipher(secret, "idempotency")),
            oidc=OidcClient(settings.oidc_providers, client, secret),
            openapi=openapi,
            others=[gate_database, relay_database],
        )

    def close_streams(self) -> None:
        """End every open stream, so that its client reconnects to another process. Call it on the event loop."""
        self.streams.close()

    def close(self) -> None:
        """Close all connections."""
        self.queue.close()
        self.redis.close()
        for database in (self.database, *self.others):
            database.close()
