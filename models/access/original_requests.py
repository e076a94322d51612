"""Requests without an Idempotency-Key that have recently created turns, in Redis, so that a retry finds those turns.

Requests that may be retries of each other have one hash, of their caller, route and body. Its entry has the last
original requests with the hash: of each the seed of its ids, as with an Idempotency-Key, and its state. If Redis loses
the entry, a retry creates a second turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import redis

from models.platform.redis_cluster import Command, execute_all

#: Seconds for which a request is found: longer than OpenAI's clients wait for a response (600 seconds) before a retry.
KEPT = 900

#: Most original requests with the same hash among which a retry looks for its own. If there are more, it joins none.
MAX_REQUESTS = 32

#: A request is open, or its client and those of its retries have disconnected, or it was rejected or has failed.
State = Literal["open", "disconnected", "failed"]


@dataclass(frozen=True, slots=True)
class OriginalRequest:
    """A request that was to create turns."""

    seed: str
    state: State = "open"


def find_all(client: redis.Redis, fingerprint: str) -> list[OriginalRequest]:
    """Return the original requests with a hash; none if there are too many. Raises redis.RedisError."""
    key = _key(fingerprint)
    (entries,) = _execute(client, [Command(key, ["LRANGE", key, 0, MAX_REQUESTS])])
    if len(entries) > MAX_REQUESTS:
        return []
    return [_parse(entry.decode()) for entry in entries]


def add_commands(fingerprint: str, request: OriginalRequest) -> list[Command]:
    """Return the Redis commands that add a request."""
    key = _key(fingerprint)
    return [
        Command(key, ["LPUSH", key, _format(request)]),
        Command(key, ["LTRIM", key, 0, MAX_REQUESTS]),
        Command(key, ["EXPIRE", key, KEPT]),
    ]


def store(client: redis.Redis, fingerprint: str, request: OriginalRequest) -> None:
    """Store the state of a request. Raises redis.RedisError."""
    key = _key(fingerprint)
    earlier = [_format(OriginalRequest(request.seed, state)) for state in get_args(State)]
    removals = [Command(key, ["LREM", key, 0, entry]) for entry in earlier]
    _execute(client, [*removals, *add_commands(fingerprint, request)])


def _format(request: OriginalRequest) -> str:
    return f"{request.state} {request.seed}"


def _parse(entry: str) -> OriginalRequest:
    state, seed = entry.split(" ", 1)
    return OriginalRequest(seed, cast(State, state))


def _execute(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    replies = execute_all(client, commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _key(fingerprint: str) -> str:
    return f"sangha:requests:{fingerprint}"
