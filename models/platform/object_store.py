"""Store objects under keys, in a folder or an S3-compatible service.

Keys begin with the account's id, so that an account's objects can be found and erased by prefix.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from obstore.store import ObjectStore as Backend

from models.platform.errors import ConfigurationError, NotFound, Unavailable
from models.platform.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig

#: Bytes of a file that are processed at a time.
CHUNK = 1024 * 1024

#: Retries of a call, and seconds after which the store counts as unavailable.
RETRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
#: The operator chooses the endpoint: http:// is allowed for one in a private network.
CLIENT: "ClientConfig" = {"allow_http": True, "timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}


class ObjectStore:
    """The object store of the installation. Thread-safe."""

    def __init__(self, store: Backend) -> None:
        self._store = store

    @classmethod
    def open(cls, settings: Settings) -> "ObjectStore":
        """Open the store of SANGHA_OBJECT_STORE, by default a folder. Raises ConfigurationError."""
        location = settings.object_store or str(settings.home / "objects")
        try:
            if location.startswith("s3://"):
                return cls(from_url(location, client_options=CLIENT, retry_config=RETRIES))
            folder = Path(location).expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return cls(LocalStore(folder))
        except (OSError, BaseError, ValueError) as error:
            raise ConfigurationError(f"SANGHA_OBJECT_STORE is {location!r}: {error}") from error

    def put(self, key: str, file: BinaryIO) -> int:
        """Store a file atomically, replacing an object with the same key. Returns its size in bytes."""
        try:
            obstore.put(self._store, key, file, chunk_size=5 * CHUNK)
            return int(obstore.head(self._store, key)["size"])
        except BaseError as error:
            raise Unavailable("The object store is unavailable.", retry_after=5) from error

    def get(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Return the object's content from an offset on, at most `length` bytes, in chunks.

        Raises NotFound before the first chunk.
        """
        try:
            if offset and offset >= obstore.head(self._store, key)["size"]:
                return iter(())
            options: GetOptions = {"range": {"offset": offset}} if offset else {}
            if length is not None:
                options = {"range": (offset, offset + length)}
            stream = obstore.get(self._store, key, options=options).stream(min_chunk_size=CHUNK)
        except FileNotFoundError:
            raise NotFound("The file's content was deleted.") from None
        except BaseError as error:
            raise Unavailable("The object store is unavailable.", retry_after=5) from error
        return (bytes(chunk) for chunk in stream)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. Missing ones are ignored."""
        for key in keys:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                continue
            except BaseError as error:
                raise Unavailable("The object store is unavailable.", retry_after=5) from error
