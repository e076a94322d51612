"""Generate ids: a prefix that names the type of the object, and a UUIDv7, which sorts by time of creation."""

import hashlib

from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """Return a new id: `new_id("job")` → `job_0199…`, with 32 hexadecimal digits after the prefix."""
    return f"{prefix}_{uuid7().hex}"


class IdGenerator:
    """Generates the ids of the objects that one request creates. With a seed, a repeated request gets the same ids.

    The seed is an id itself; ids derived from it have its timestamp.
    """

    def __init__(self, seed: str | None = None) -> None:
        self._seed = seed
        self._made = 0

    def new(self, prefix: str) -> str:
        """Return the next id. It depends on the seed, the prefix and the number of ids generated before."""
        self._made += 1
        if self._seed is None:
            return new_id(prefix)
        return f"{prefix}_{_derived(self._seed, f'{prefix} {self._made}')}"


def _derived(seed: str, name: str) -> str:
    """Derive a UUIDv7 (RFC 9562, 5.7): the timestamp of the seed, and bits of a hash of seed and name."""
    time = seed[-32:-20]
    digest = hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
    return f"{time}7{digest[:3]}{'89ab'[int(digest[3], 16) % 4]}{digest[4:19]}"
