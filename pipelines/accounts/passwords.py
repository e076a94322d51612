"""Passwords as Argon2id hashes.

The parameters are OWASP's first choice with the least memory (Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane).

A password is hashed in Unicode's composed form (NFC): keyboards differ in how they send an ä.
"""

import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from models.errors import InvalidRequest, Unavailable

SHORTEST, LONGEST = 8, 1024

#: Each hash takes 19 MiB and a whole core: more of them at once than cores only takes memory.
AT_ONCE = max(2, os.cpu_count() or 2)

#: Seconds that a caller stands in line for a core.
PATIENCE = 5.0

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
_cores = threading.BoundedSemaphore(AT_ONCE)

#: The hash of no password that anyone knows, so that an unknown user takes as long as a wrong password.
_NOBODY = _hasher.hash(os.urandom(32))


def check_strength(password: str) -> None:
    """Raises InvalidRequest for a password that is too short, or so long that it is an attack."""
    if len(password) > LONGEST or len(_normal(password)) < SHORTEST:
        message = f"The password should have {SHORTEST} to {LONGEST} characters."
        raise InvalidRequest(message, param="password", code="invalid_password")


def hash_password(password: str) -> str:
    """The text to store."""
    with _core():
        return _hasher.hash(_normal(password))


def verify(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one. Takes alike for nobody (None), a right and a wrong password."""
    if len(password) > LONGEST:
        password = ""
    with _core():
        try:
            matches = _hasher.verify(stored or _NOBODY, _normal(password))
        except (VerificationError, InvalidHashError):
            return False
    return matches and stored is not None


def needs_rehash(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def _normal(password: str) -> str:
    """As it is hashed. Only for what is not longer than LONGEST: long rows of accents take quadratic time."""
    return unicodedata.normalize("NFC", password)


@contextmanager
def _core() -> Iterator[None]:
    if not _cores.acquire(timeout=PATIENCE):
        raise Unavailable("Too many people are logging in at this moment.")
    try:
        yield
    finally:
        _cores.release()
