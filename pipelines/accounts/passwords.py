"""Passwords as Argon2id hashes.

The parameters are OWASP's first choice with the least memory (Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane).
Each hash takes a core for some 20 ms: endpoints call what hashes through `web.access.hashing_pool`, which has threads for
it.

A password is hashed in Unicode's composed form (NFC): keyboards differ in how they send an ä.

The commonest passwords come from zxcvbn's frequency lists, which count leaked passwords, words and names; a word that
stands in several of them is kept only in the one where it is the most frequent, and so all of them count.
"""

import os
import unicodedata
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from models.platform.errors import InvalidRequest

SHORTEST, LONGEST = 8, 1024

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)

#: The hash of no password that anyone knows, so that an unknown user takes as long as a wrong password.
_NOBODY = _hasher.hash(os.urandom(32))


def check_strength(password: str, *, email: str = "", param: str = "password") -> None:
    """Raises InvalidRequest for a password that is too short, endless, among the commonest, or the address itself."""
    if len(password) > LONGEST or len(_normal(password)) < SHORTEST:
        raise _weak(f"The password should have {SHORTEST} to {LONGEST} characters.", param)
    folded = _normal(password).casefold()
    if folded in _commonest() or len(set(folded)) == 1:
        raise _weak("This password is among the first that anybody would try. Take a longer one.", param)
    if email and folded in (email.casefold(), email.casefold().partition("@")[0]):
        raise _weak("The password should not be the address.", param)


def hash_password(password: str) -> str:
    """The text to store."""
    return _hasher.hash(_normal(password))


def verify(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one. Takes alike for nobody (None), a right and a wrong password."""
    if len(password) > LONGEST:
        password = ""
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


def _weak(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_password")


@cache
def _commonest() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # a megabyte, for those processes that need it

    words = (word for words in FREQUENCY_LISTS.values() for word in words)
    return frozenset(word.casefold() for word in words if len(word) >= SHORTEST)
