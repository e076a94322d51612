"""Store objects under keys, in a folder or an S3-compatible service.

Keys begin with the account's id, so that an account's objects can be found and erased by prefix. A key may end with the
SHA-256 of its content (`key_with_digest`): then every complete read compares it.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from models.platform.errors import ConfigurationError
from models.platform.folder_objects import FolderObjects
from models.platform.object_errors import DamagedObject, ObjectExists, ObjectStoreUnavailable
from models.platform.s3_objects import S3Objects
from models.platform.settings import Settings
from models.platform.stored_objects import CHUNK, Backend, ObjectInfo, check_key, digest_in, key_with_digest

__all__ = ["CHUNK", "DamagedObject", "ObjectExists", "ObjectInfo", "ObjectStore", "key_with_digest"]

log = logging.getLogger(__name__)

#: Seconds for which the same failure is not logged again.
LOG_INTERVAL = 10.0


class ObjectStore:
    """The object store of the installation. Thread-safe."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._logged: dict[str, float] = {}

    @classmethod
    def open(cls, settings: Settings) -> "ObjectStore":
        """Open the store of SANGHA_OBJECT_STORE, by default a folder. Raises ConfigurationError."""
        location = settings.object_store or str(settings.home / "objects")
        if location.startswith("s3://"):
            return cls(S3Objects.of(settings))
        try:
            return cls(FolderObjects(Path(location).expanduser().absolute()))
        except OSError as error:
            raise ConfigurationError(f"SANGHA_OBJECT_STORE is {location!r}: {error}") from error

    @property
    def name(self) -> str:
        """The folder, or the bucket and prefix, for operators."""
        return self._backend.name

    def put(self, key: str, content: BinaryIO | Iterable[bytes], *, only_if_absent: bool = False) -> int:
        """Store an object atomically, by default in place of one with the same key. Returns its size in bytes.

        content  a file, or chunks, of which a few are in memory at a time. If reading it fails, nothing is stored

        Raises Unavailable, ObjectExists if another object has the key, and ValueError for a content that does not
        match the digest in the key.
        """
        chunks = _Measured(_chunks(content))
        with self._logging():
            try:
                self._backend.put(check_key(key), chunks.checked(digest_in(key)), only_if_absent=only_if_absent)
            except ObjectExists:
                self._check_same(key, chunks)
        return chunks.size

    def _check_same(self, key: str, chunks: "_Measured") -> None:
        """Raise ObjectExists unless the object has the same content: then an earlier try has stored it."""
        chunks.exhaust()
        stored = _Measured(self._backend.open(key, 0, None).chunks)
        stored.exhaust()
        if stored.digest.digest() != chunks.digest.digest():
            raise ObjectExists(f"another object has the key {key}")

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the object's content from an offset on, at most `length` bytes, in chunks.

        Raises NotFound and Unavailable before the first chunk. Before the last chunk of a whole object with a digest in
        its key DamagedObject is raised if it was altered or truncated.
        """
        with self._logging():
            opened = self._backend.open(check_key(key), offset, length)
        expected = None if offset or (length is not None and length < opened.size) else digest_in(key)
        return self._read(opened.chunks, key, expected)

    def _read(self, chunks: Iterator[bytes], key: str, expected: str | None) -> Iterator[bytes]:
        """Return the chunks. The last one is held back until the digest is known."""
        digest, last = hashlib.sha256(), b""
        with self._logging():
            for chunk in chunks:
                if last:
                    yield last
                if expected is not None:
                    digest.update(chunk)
                last = chunk
        if expected is not None and digest.hexdigest() != expected:
            log.error("The object %s in %s is damaged: restore it from a backup.", key, self.name)
            raise DamagedObject(f"the object {key} is damaged")
        if last:
            yield last

    def head(self, key: str) -> ObjectInfo:
        """Return size and time of an object. Raises NotFound and Unavailable."""
        with self._logging():
            return self._backend.head(check_key(key))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. Missing ones are ignored. Raises Unavailable."""
        with self._logging():
            self._backend.delete(map(check_key, keys))

    def list(self, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """Return the objects below a prefix such as an account's id, behind a key, in the order of their keys.

        Raises Unavailable.
        """
        with self._logging():
            yield from self._backend.list(prefix, after)

    def delete_prefix(self, prefix: str) -> Sequence[str]:
        """Delete all objects below a prefix. Returns their keys. Raises Unavailable."""
        keys = [found.key for found in self.list(check_key(prefix))]
        self.delete(keys)
        return keys

    def delete_unfinished(self, seconds: float) -> int:
        """Delete what crashed writers have left, if it is older than so many seconds. Returns how many.

        Raises Unavailable.
        """
        with self._logging():
            return self._backend.delete_unfinished(seconds)

    def presign(self, key: str, seconds: int, filename: str, content_type: str) -> str | None:
        """Return a URL that serves the object as a file of this name for so many seconds, at most a week.

        Returns None for a folder, and for a bucket whose credentials come from a machine's role.
        """
        return self._backend.presign(check_key(key), seconds, filename, content_type)

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Log failures, each reason at most once in LOG_INTERVAL."""
        try:
            yield
        except ObjectStoreUnavailable as error:
            now = time.monotonic()
            if now - self._logged.get(error.reason, -LOG_INTERVAL) >= LOG_INTERVAL:
                self._logged[error.reason] = now
                log.warning("Object store %s: %s", self.name, error.reason)
            raise


class _Measured:
    """Chunks, with their size and digest so far."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.size = 0
        self.digest = hashlib.sha256()

    def checked(self, expected: str | None) -> Iterator[bytes]:
        """Return the chunks. Raises ValueError at the end if the digest is not the expected one."""
        for chunk in self._chunks:
            self.size += len(chunk)
            self.digest.update(chunk)
            yield chunk
        if expected is not None and self.digest.hexdigest() != expected:
            raise ValueError("the content does not match the digest in the key")

    def exhaust(self) -> None:
        """Read the remaining chunks."""
        for _ in self.checked(None):
            pass


def _chunks(content: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    if not hasattr(content, "read"):
        yield from content
        return
    while chunk := content.read(CHUNK):
        yield chunk
