"""What one web process holds for all of its requests."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from models.platform.database import Database
from models.platform.object_store import Objects
from models.platform.redis_client import connect
from models.platform.secrets import Seal, secret_key
from models.platform.settings import Settings
from pipelines.accounts.login_limits import LoginLimiter
from pipelines.accounts.tokens import Tokens
from tasks.queue import Queue
from web.accounts.hashing import Hashing
from web.accounts.providers import Providers
from web.entrance.gate import Gate, Gatekeeper
from web.entrance.limits import Limiter
from web.health.metrics import Metrics
from web.streams.sse import Streams
from web.streams.tail import Tail

#: Connections to Postgres: a request holds one for a few milliseconds, never while it waits for anything else.
CONNECTIONS = 16

#: Seconds that a request waits for Redis: what it would be told there stands in Postgres too.
REDIS_TIMEOUT = 1.5


@dataclass(slots=True)
class Platform:
    """Opened when the process starts, closed when it ends.

    `checks` say whether the process is ready: each returns when its part works and raises when it doesn't.
    `facts` are shown beside them and decide nothing.
    """

    settings: Settings
    database: Database
    redis: "redis.Redis"
    tokens: Tokens
    gate: Gate
    metrics: Metrics
    queue: Queue
    tail: Tail
    objects: Objects
    seal: Seal
    providers: Providers
    login_limiter: LoginLimiter = field(init=False)
    hashing: Hashing = field(default_factory=Hashing)
    streams: Streams = field(default_factory=Streams)
    started: int = field(default_factory=lambda: int(time.time()))
    checks: dict[str, Callable[[], object]] = field(default_factory=dict)
    facts: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.login_limiter = LoginLimiter(self.redis)

    @classmethod
    def open(cls, settings: Settings, tokens: Tokens, metrics: Metrics) -> "Platform":
        """Opening waits for no server."""
        client = connect(settings.redis_address, timeout=REDIS_TIMEOUT)
        database = Database(settings.postgres_dsn, size=CONNECTIONS, name="sangha web")
        queue = Queue(settings, database, client)
        tail = Tail(settings.redis_address, database)
        gate = Gatekeeper(database, tokens, Limiter(client, settings.visits_per_minute))
        seal = Seal(secret_key(settings), "idempotency")
        providers = Providers(settings.oidc_providers, client, secret_key(settings))
        objects = Objects.open(settings)
        return cls(settings, database, client, tokens, gate, metrics, queue, tail, objects, seal, providers)

    def close_streams(self) -> None:
        """End every open stream, so that its client goes on elsewhere. To be called on the event loop."""
        self.streams.close()

    def close(self) -> None:
        """Give everything back."""
        self.queue.close()
        self.redis.close()
        self.database.close()
