"""Requests without an Idempotency-Key that have recently created turns, in Redis, so that a retry finds those turns.

A request is identified by a hash of its caller, route and body. The entry has the seed of the request's ids, as with an
Idempotency-Key, and whether its client has disconnected. If Redis loses the entry, a retry creates a second turn.
"""

from dataclasses import dataclass

import redis

from models.platform.redis_cluster import Command, execute_all

#: Seconds for which a request is found: longer than OpenAI's clients wait for a response (600 seconds) before a retry.
KEPT = 900

LEFT, OPEN = b"left ", b"open "


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """An earlier request. `left`: its client has disconnected."""

    seed: str
    left: bool


def find(client: redis.Redis, fingerprint: str) -> RecentRequest | None:
    """Return the last request with this fingerprint. Raises redis.RedisError."""
    key = _key(fingerprint)
    (reply,) = execute_all(client, [Command(key, ["GET", key])])
    if isinstance(reply, Exception):
        raise reply
    return None if reply is None else RecentRequest(reply[len(OPEN) :].decode(), reply.startswith(LEFT))


def record_command(fingerprint: str, seed: str, *, left: bool = False) -> Command:
    """Return the Redis command that records a request."""
    key = _key(fingerprint)
    return Command(key, ["SET", key, (LEFT if left else OPEN) + seed.encode(), "EX", KEPT])


def record(client: redis.Redis, fingerprint: str, seed: str, *, left: bool = False) -> None:
    """Record a request. Raises redis.RedisError."""
    (reply,) = execute_all(client, [record_command(fingerprint, seed, left=left)])
    if isinstance(reply, Exception):
        raise reply


def _key(fingerprint: str) -> str:
    return f"sangha:request:{fingerprint}"
