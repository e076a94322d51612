"""Requests without an Idempotency-Key that have recently created turns, in Redis, so that a retry finds those turns.

Requests that may be retries of each other have one hash, of their caller, route and body. Its entry has the last
original requests with the hash: of each the seed of its ids, as with an Idempotency-Key, and whether its client has
disconnected. If Redis loses the entry, a retry creates a second turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from models.platform.redis_cluster import Command, execute_all

#: Seconds for which a request is found: longer than OpenAI's clients wait for a response (600 seconds) before a retry.
KEPT = 900

#: Original requests with the same hash, beyond which none is found: a retry could not be told from the others.
MAX_REQUESTS = 32

OPEN, DISCONNECTED = b"open ", b"disc "


@dataclass(frozen=True, slots=True)
class OriginalRequest:
    """A request that has created turns. `disconnected`: its client, and those of its retries, have disconnected."""

    seed: str
    disconnected: bool = False


def find_all(client: redis.Redis, fingerprint: str) -> list[OriginalRequest]:
    """Return the original requests with a hash; none if there are too many. Raises redis.RedisError."""
    key = _key(fingerprint)
    (entries,) = _execute(client, [Command(key, ["LRANGE", key, 0, MAX_REQUESTS])])
    if len(entries) > MAX_REQUESTS:
        return []
    return [OriginalRequest(entry[len(OPEN) :].decode(), entry.startswith(DISCONNECTED)) for entry in entries]


def add_commands(fingerprint: str, seed: str) -> list[Command]:
    """Return the Redis commands that add a request."""
    key = _key(fingerprint)
    return [
        Command(key, ["LPUSH", key, OPEN + seed.encode()]),
        Command(key, ["LTRIM", key, 0, MAX_REQUESTS]),
        Command(key, ["EXPIRE", key, KEPT]),
    ]


def mark(client: redis.Redis, fingerprint: str, seed: str, *, disconnected: bool) -> None:
    """Record whether the client of a request has disconnected. Raises redis.RedisError."""
    key = _key(fingerprint)
    before, after = (OPEN, DISCONNECTED) if disconnected else (DISCONNECTED, OPEN)
    _execute(
        client,
        [
            Command(key, ["LREM", key, 0, before + seed.encode()]),
            Command(key, ["LREM", key, 0, after + seed.encode()]),
            Command(key, ["LPUSH", key, after + seed.encode()]),
            Command(key, ["LTRIM", key, 0, MAX_REQUESTS]),
            Command(key, ["EXPIRE", key, KEPT]),
        ],
    )


def _execute(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    replies = execute_all(client, commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _key(fingerprint: str) -> str:
    return f"sangha:requests:{fingerprint}"
