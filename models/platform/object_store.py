"""Store objects under keys, in a folder or an S3-compatible service.

Keys begin with the account's id, so that an account's objects can be found and erased by prefix. Objects of one size
up to a few megabytes are put in one request each; larger ones in parts, which the service shows once all are there.

S3 is configured by the usual variables: AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL, AWS_SERVER_SIDE_ENCRYPTION …
(docs/guides/object-storage.md).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, S3Store, from_url

from models.platform import object_folder
from models.platform.errors import ConfigurationError, NotFound
from models.platform.object_errors import store_errors, unavailable
from models.platform.settings import Settings

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: Bytes of a file that are processed at a time.
CHUNK = 1024 * 1024

#: Bytes of an object that are read with one request, so that a slow reader keeps no request open.
PIECE = 2 * CHUNK

#: Bytes up to which an object is put in one request, and of each part of a larger one; parts that are sent at once.
ONE_REQUEST, CONCURRENT_PARTS = 8 * CHUNK, 2

#: Retries of a call, and seconds after which the store counts as unavailable.
RETRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
#: The operator chooses the endpoint: http:// is allowed for one in a private network.
CLIENT: "ClientConfig" = {"allow_http": True, "timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}

#: The service compares each object with this checksum of what was sent. It must be one that obstore knows.
CHECKSUM = ("AWS_CHECKSUM_ALGORITHM", "SHA256")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is listed."""

    key: str
    size: int
    modified_at: datetime


class ObjectStore:
    """The object store of the installation. Thread-safe."""

    def __init__(self, store: LocalStore | S3Store, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, settings: Settings) -> "ObjectStore":
        """Open the store of SANGHA_OBJECT_STORE, by default a folder. Raises ConfigurationError."""
        location = settings.object_store or str(settings.home / "objects")
        try:
            if location.startswith("s3://"):
                return cls(_open_bucket(location))
            folder = Path(location).expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return cls(LocalStore(folder), folder)
        except (OSError, BaseError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            raise ConfigurationError(f"SANGHA_OBJECT_STORE is {location!r}: {first_line}") from error

    @property
    def can_presign(self) -> bool:
        """Whether the store gives out URLs of objects."""
        return isinstance(self._store, S3Store)

    def put(self, key: str, file: BinaryIO, *, filename: str | None = None, content_type: str | None = None) -> int:
        """Store a file atomically, replacing an object with the same key. Returns its size in bytes.

        filename, content_type  that a presigned URL answers with

        Raises Unavailable, and ValueError for an invalid key.
        """
        object_folder.check_key(key)
        with store_errors():
            if self._folder is not None:
                return object_folder.put(self._folder, key, file)
            start = file.tell()
            size = file.seek(0, os.SEEK_END) - start
            file.seek(start)
            obstore.put(
                self._store,
                key,
                file,
                attributes=_attributes(filename, content_type),
                use_multipart=size > ONE_REQUEST,
                chunk_size=ONE_REQUEST,
                max_concurrency=CONCURRENT_PARTS,
            )
            return size

    def put_new(self, key: str, content: bytes) -> bool:
        """Store a small object unless there is one with the key. Returns whether it was stored."""
        object_folder.check_key(key)
        with store_errors():
            try:
                obstore.put(self._store, key, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the object's content from an offset on in chunks: all, or `length` bytes, which it has to have.

        Raises NotFound and Unavailable before the first chunk; Unavailable also between chunks.
        """
        end = self.size(key) if length is None else offset + length
        ranges = [(start, min(start + PIECE, end)) for start in range(offset, end, PIECE)]
        if not ranges:
            return iter(())
        return self._pieces(key, ranges[1:], self._piece(key, *ranges[0]))

    def size(self, key: str) -> int:
        """Return the size of an object. Raises NotFound and Unavailable."""
        try:
            with store_errors():
                return int(obstore.head(self._store, key)["size"])
        except NotFound:
            next(self.list(key), None)  # raises Unavailable if the bucket is missing, which the answer to HEAD hides
            raise

    def list(self, prefix: str, *, after: str | None = None) -> Iterator[StoredObject]:
        """List objects by prefix, in the order of their keys, from the first one after a key on. Raises Unavailable.

        A folder has no order.
        """
        with store_errors():
            for batch in obstore.list(self._store, prefix, offset=after):
                for each in batch:
                    yield StoredObject(each["path"], int(each["size"]), each["last_modified"])

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. Missing ones are ignored."""
        for key in keys:
            with suppress(NotFound), store_errors():
                obstore.delete(self._store, key)

    def delete_partial(self) -> int:
        """Delete what killed processes have left in a folder. Returns the number of files; S3 keeps none itself."""
        return 0 if self._folder is None else object_folder.delete_partial(self._folder)

    def presign(self, key: str, seconds: int) -> str:
        """Return a URL that answers with an object for so many seconds, to anyone who knows it.

        It goes on for that long if the row of the object is deleted, but ends with the object itself.
        """
        assert isinstance(self._store, S3Store)
        with store_errors():
            return obstore.sign(self._store, "GET", key, timedelta(seconds=seconds))

    def _pieces(self, key: str, ranges: Iterable[tuple[int, int]], first: bytes) -> Iterator[bytes]:
        yield first
        for start, end in ranges:
            yield self._piece(key, start, end)

    def _piece(self, key: str, start: int, end: int) -> bytes:
        with store_errors():
            piece = bytes(obstore.get_range(self._store, key, start=start, end=end))
        if len(piece) != end - start:
            raise unavailable(OSError(f"{key} has lost bytes: {len(piece)} of {end - start} were read"))
        return piece


def _open_bucket(url: str) -> S3Store:
    name, value = CHECKSUM
    config: S3Config = {} if os.environ.get(name) else {"checksum_algorithm": value}
    store = from_url(url, config=config, client_options=CLIENT, retry_config=RETRIES)
    assert isinstance(store, S3Store)
    return store


def _attributes(filename: str | None, content_type: str | None) -> "Attributes | None":
    attributes: Attributes = {}
    if content_type is not None:
        attributes["Content-Type"] = content_type
    if filename is not None:
        attributes["Content-Disposition"] = f'attachment; filename="{filename}"'
    return attributes or None
