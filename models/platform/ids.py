"""Identifiers: a prefix that says what it is, and a UUIDv7 that sorts by time of birth."""

import hashlib

from uuid_utils import uuid7


def new_id(prefix: str) -> str:
    """`new_id("job")` → `job_0199…`, 32 hexadecimal digits after the prefix."""
    return f"{prefix}_{uuid7().hex}"


class IdGenerator:
    """The ids of what one request makes. From a seed they are the same whenever the request is made again.

    `seed` is an id itself, and what comes from it sorts as old as that is.
    """

    def __init__(self, seed: str | None = None) -> None:
        self._seed = seed
        self._made = 0

    def new(self, prefix: str) -> str:
        """The next id. It depends on the seed, on the prefix and on how many were made before."""
        self._made += 1
        if self._seed is None:
            return new_id(prefix)
        return f"{prefix}_{_derived(self._seed, f'{prefix} {self._made}')}"


def _derived(seed: str, name: str) -> str:
    """A UUIDv7 (RFC 9562, 5.7) with the seed's time and bits that follow from its whole and the name."""
    time = seed[-32:-20]
    digest = hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
    return f"{time}7{digest[:3]}{'89ab'[int(digest[3], 16) % 4]}{digest[4:19]}"
