"""What a Redis server does with its data when its memory is full or it restarts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from models.platform.redis_memory import SHORT

#: What happens when Redis evicts keys, and when it restarts without its data.
EVICTION_EFFECT = (
    "when its memory is full, it deletes journals, rate limits and, if it is the broker, messages: "
    "running answers are rewound, and messages are sent again only after a while"
)
FULL_EFFECT = "when it is full, requests that change something are refused with status 503 and jobs wait"
RESTART_EFFECT = (
    "a restart deletes journals, rate limits and, if it is the broker, messages: "
    "answers of workers that crash at the same time are rewound to their last checkpoint"
)


@dataclass(frozen=True, slots=True)
class RedisDurability:
    """What a server reports about itself; None where it does not permit the question.

    policy     `maxmemory-policy`
    limit      bytes of memory at which the policy takes effect; 0 without a limit
    used       bytes of memory that it uses
    persisted  whether it writes an append-only file or snapshots
    """

    policy: str | None
    limit: int
    persisted: bool | None
    used: int = 0

    @property
    def bounded(self) -> bool:
        """Whether it has a limit of memory."""
        return self.limit > 0

    @property
    def is_short(self) -> bool:
        """Whether it has used so much of its memory that new jobs no longer write their first events to it."""
        return self.bounded and self.used > SHORT * self.limit

    @property
    def evicts(self) -> bool:
        """Whether the server deletes keys when its memory is full."""
        return self.bounded and self.policy not in (None, "noeviction")

    def warnings(self) -> list[str]:
        """Return what may be lost, one sentence each."""
        found = []
        if self.evicts:
            found.append(f"maxmemory-policy is {self.policy}: {EVICTION_EFFECT}")
        if self.is_short:
            found.append(f"{_megabytes(self.used)} of {_megabytes(self.limit)} of its memory are used: {FULL_EFFECT}")
        if self.persisted is False:
            found.append(f"neither an append-only file nor snapshots: {RESTART_EFFECT}")
        return found


def read_durability(client: redis.Redis) -> RedisDurability:
    """Read the durability of a server, which may forbid `CONFIG`. Raises redis.ConnectionError and TimeoutError."""
    memory = _permitted(lambda: client.info("memory"))
    return RedisDurability(
        policy=memory.get("maxmemory_policy"),
        limit=int(memory.get("maxmemory", 0)),
        used=int(memory.get("used_memory", 0)),
        persisted=_persisted(client),
    )


def _persisted(client: redis.Redis) -> bool | None:
    persistence = _permitted(lambda: client.info("persistence"))
    if persistence.get("aof_enabled") == 1:
        return True
    save = _permitted(lambda: client.config_get("save")).get("save")
    return None if save is None else bool(save)


def _permitted(command: Callable[[], Any]) -> Mapping[str, Any]:
    """Return the reply to a command, or nothing if the server forbids it or does not know it."""
    try:
        reply: Mapping[str, Any] = command()
    except redis.ResponseError:
        return {}
    return {_text(key): _text(value) for key, value in reply.items()}


def _megabytes(size: int) -> str:
    return f"{size / 1_048_576:,.0f} MiB"


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
