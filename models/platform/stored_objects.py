"""What object stores have in common: keys, digests in keys, and the interface of their implementations."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

#: Bytes of a file that are processed at a time.
CHUNK = 1024 * 1024

#: The message of the error for a missing object.
DELETED = "The file's content was deleted."

#: The segments of keys: no path tricks, nothing that a folder or a URL would read in another way.
KEY = re.compile(r"(?!.{513})[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199})*")

#: The end of a key that has the digest of its content.
DIGEST = re.compile(r"\.sha256-([0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing. `modified` is the store's time."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object that is read. `size` is that of the whole object, `chunks` its content in the range asked for."""

    size: int
    chunks: Iterator[bytes]


class Backend(Protocol):
    """A place for objects. Everything raises Unavailable."""

    @property
    def name(self) -> str:
        """The place, for operators."""

    def put(self, key: str, chunks: Iterator[bytes], *, only_if_absent: bool = False) -> None:
        """Store an object atomically. Raises ObjectExists, and what the iterator raises."""

    def open(self, key: str, offset: int, length: int | None) -> OpenObject:
        """Open an object for reading. Raises NotFound."""

    def head(self, key: str) -> ObjectInfo:
        """Return size and time of an object. Raises NotFound."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. Missing ones are ignored."""

    def list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Return the objects below a prefix, behind a key, in the order of their keys."""

    def delete_unfinished(self, seconds: float) -> int:
        """Delete what writers that died left over, older than so many seconds. Returns how many."""

    def presign(self, key: str, seconds: int, filename: str, content_type: str) -> str | None:
        """Return a URL for reading an object, or None if there is none."""


def check_key(key: str) -> str:
    """Return the key. Raises ValueError: keys are built by the code, never by callers."""
    if not KEY.fullmatch(key):
        raise ValueError(f"not a key of an object: {key!r}")
    return key


def key_with_digest(key: str, content: bytes | bytearray) -> str:
    """Return the key of an object with the digest of its content, by which readers detect changes and truncation."""
    return f"{key}.sha256-{hashlib.sha256(content).hexdigest()}"


def digest_in(key: str) -> str | None:
    """Return the digest that the key has, as hexadecimal digits."""
    found = DIGEST.search(key)
    return found[1] if found else None
