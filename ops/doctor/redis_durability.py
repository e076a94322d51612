"""Check what Redis does with its data when its memory is full or it restarts."""

import redis

from models.platform.redis_client import connect
from models.platform.redis_durability import RedisDurability, read_durability
from models.platform.settings import Settings
from ops.doctor.finding import Finding
from ops.messages import first_line

#: Seconds to wait for an answer.
TIMEOUT = 3.0

NAME = "Redis durability"


def redis_durability(settings: Settings) -> Finding:
    """Check that Redis neither evicts keys nor forgets them at a restart."""
    try:
        with connect(settings.redis_address, timeout=TIMEOUT) as client:
            durability = read_durability(client)
    except redis.RedisError as error:
        return Finding("warn", NAME, f"cannot be checked ({first_line(error)})")
    if warnings := durability.warnings():
        return Finding("warn", NAME, "; ".join(warnings), _remedy(durability))
    return Finding("ok", NAME, f"maxmemory-policy {_shown(durability)}")


def _remedy(durability: RedisDurability) -> str:
    remedies = []
    if durability.evicts:
        remedies.append("set `maxmemory-policy noeviction`, and alert on memory")
    if durability.is_short:
        remedies.append("raise `maxmemory`, or lower the plans' limits of unfinished jobs")
    if durability.persisted is False:
        remedies.append("set `appendonly yes`")
    return "; ".join(remedies)


def _shown(durability: RedisDurability) -> str:
    policy = durability.policy or "cannot be checked"
    limit = f", {durability.limit / 1_048_576:,.0f} MiB" if durability.bounded else ", no memory limit"
    persistence = "persistence cannot be checked" if durability.persisted is None else "persisted"
    return f"{policy}{limit}, {persistence}"
