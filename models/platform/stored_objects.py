"""Define the keys of objects, the digests in them, and the interface of the implementations of object stores."""

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

#: Keys: at most 512 characters in segments of letters, digits, `_`, `-` and `.`, none of which begins with a dot. So a
#: key is the same as a path and in a URL.
KEY = re.compile(r"(?!.{513})[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199})*")

#: The end of a key that contains the digest of its content.
DIGEST = re.compile(r"\.sha256-([0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing. `modified` is the store's time."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object that is being read: the size of the whole object, and the content of the requested range."""

    size: int
    chunks: Iterator[bytes]


class Backend(Protocol):
    """The implementation of an object store. All methods raise Unavailable if the store cannot be used."""

    @property
    def name(self) -> str:
        """The folder, or the bucket and prefix, for operators."""

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
        """Delete what crashed writers have left, if it is older than so many seconds. Returns how many."""

    def presign(self, key: str, seconds: int, filename: str, content_type: str) -> str | None:
        """Return a signed URL for reading an object, or None if the store has none."""


def check_key(key: str) -> str:
    """Return the key. Raises ValueError: keys are built by the code, never by callers."""
    if not KEY.fullmatch(key):
        raise ValueError(f"not a key of an object: {key!r}")
    return key


def key_with_digest(key: str, content: bytes | bytearray) -> str:
    """Return the key of an object with the digest of its content, by which readers detect changes and truncation."""
    return f"{key}.sha256-{hashlib.sha256(content).hexdigest()}"


def digest_in(key: str) -> str | None:
    """Return the digest in a key, as hexadecimal digits; None for a key without one."""
    found = DIGEST.search(key)
    return found[1] if found else None
