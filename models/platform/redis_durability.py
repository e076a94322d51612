"""What a Redis server does with its data when its memory is full or it restarts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

#: What happens when Redis evicts keys, and when it restarts without its data.
EVICTION_EFFECT = (
    "when its memory is full, it deletes journals, rate limits and, if it is the broker, messages: "
    "running answers are rewound, and messages are sent again only after a while"
)
RESTART_EFFECT = (
    "a restart deletes journals, rate limits and, if it is the broker, messages: "
    "answers of workers that crash at the same time are rewound to their last checkpoint"
)


@dataclass(frozen=True, slots=True)
class RedisDurability:
    """What a server reports about itself; None where it does not permit the question.

    policy     `maxmemory-policy`
    bounded    whether it has a limit of memory, at which the policy takes effect
    persisted  whether it writes an append-only file or snapshots
    """

    policy: str | None
    bounded: bool
    persisted: bool | None

    @property
    def evicts(self) -> bool:
        """Whether the server deletes keys when its memory is full."""
        return self.bounded and self.policy not in (None, "noeviction")

    def warnings(self) -> list[str]:
        """Return what may be lost, one sentence each."""
        found = []
        if self.evicts:
            found.append(f"maxmemory-policy is {self.policy}: {EVICTION_EFFECT}")
        if self.persisted is False:
            found.append(f"neither an append-only file nor snapshots: {RESTART_EFFECT}")
        return found


def read_durability(client: redis.Redis) -> RedisDurability:
    """Read the durability of a server, which may forbid `CONFIG`. Raises redis.ConnectionError and TimeoutError."""
    memory = _permitted(lambda: client.info("memory"))
    return RedisDurability(
        policy=memory.get("maxmemory_policy"),
        bounded=memory.get("maxmemory", 0) != 0,
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


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
