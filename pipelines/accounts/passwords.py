"""Hash and verify passwords with Argon2id.

The parameters are OWASP's first choice with the least memory (Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane).
Each hash takes a core for some 20 ms, so endpoints call these functions in `web.access.hashing_pool`'s threads. A
process hashes on at most half of the cores at a time: otherwise a flood of logins takes those that other requests and
workers need.

A password is hashed in Unicode's composed form (NFC), since keyboards differ in how they send an ä.

Common passwords are those of zxcvbn's frequency lists of leaked passwords, words and names. zxcvbn keeps a word only in
the list where it is most frequent, so all lists are used.
"""

import os
import threading
import unicodedata
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from models.platform.errors import InvalidRequest

MIN_LENGTH, MAX_LENGTH = 8, 1024

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)

#: Hashes that a process computes at a time. The threads of logins are more, because they also wait for Postgres.
MAX_CONCURRENT = max(1, (os.cpu_count() or 2) // 2)

_cores = threading.BoundedSemaphore(MAX_CONCURRENT)

#: The hash of a random password: verifying an unknown user takes as long as a wrong password.
_DUMMY = _hasher.hash(os.urandom(32))


def check_strength(password: str, *, email: str = "", param: str = "password") -> None:
    """Raise InvalidRequest for a password that is too short or long, common, or the user's e-mail address."""
    if len(password) > MAX_LENGTH or len(_normalize(password)) < MIN_LENGTH:
        raise _weak(f"The password must have {MIN_LENGTH} to {MAX_LENGTH} characters.", param)
    folded = _normalize(password).casefold()
    if folded in _common_passwords() or len(set(folded)) == 1:
        raise _weak("This password is too common. Choose a longer one.", param)
    if email and folded in (email.casefold(), email.casefold().partition("@")[0]):
        raise _weak("The password must not be your e-mail address.", param)


def hash_password(password: str) -> str:
    """Return the hash to store."""
    normalized = _normalize(password)
    with _cores:
        return _hasher.hash(normalized)


def verify(stored: str | None, password: str) -> bool:
    """Return whether the password matches the stored hash. Takes the same time for no hash (None)."""
    if len(password) > MAX_LENGTH:
        password = ""
    normalized = _normalize(password)
    try:
        with _cores:
            matches = _hasher.verify(stored or _DUMMY, normalized)
    except (VerificationError, InvalidHashError):
        return False
    return matches and stored is not None


def needs_rehash(stored: str) -> bool:
    """Return whether the hash was made with other parameters than the current ones."""
    return _hasher.check_needs_rehash(stored)


def _normalize(password: str) -> str:
    """Return the composed form. At most MAX_LENGTH characters: long rows of accents take quadratic time."""
    return unicodedata.normalize("NFC", password)


def _weak(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_password")


@cache
def _common_passwords() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # a megabyte, loaded only by processes that need it

    words = (word for words in FREQUENCY_LISTS.values() for word in words)
    return frozenset(word.casefold() for word in words if len(word) >= MIN_LENGTH)
