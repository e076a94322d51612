"""The object store: bytes under keys, in a folder or in any S3-compatible service.

Keys begin with the account's id, so that what belongs to an account can be found and erased by prefix.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from models.platform.errors import ConfigurationError, NotFound, Unavailable
from models.platform.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

#: Bytes of a file that are handled at a time.
CHUNK = 1024 * 1024

#: How often a call is repeated, and how long it may take, before the store counts as down.
RETRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
#: The endpoint is the operator's own word: one that says http:// is one in their network.
CLIENT: "ClientConfig" = {"allow_http": True, "timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}


class Objects:
    """The installation's object store. Safe to use from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, settings: Settings) -> "Objects":
        """The store of SANGHA_OBJECT_STORE, or a folder below the data folder. Raises ConfigurationError."""
        place = settings.object_store or str(settings.home / "objects")
        try:
            if place.startswith("s3://"):
                return cls(from_url(place, client_options=CLIENT, retry_config=RETRIES))
            folder = Path(place).expanduser().absolute()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return cls(LocalStore(folder))
        except (OSError, BaseError, ValueError) as error:
            raise ConfigurationError(f"SANGHA_OBJECT_STORE is {place!r}: {error}") from error

    def put(self, key: str, file: BinaryIO) -> int:
        """Store a file whole, or not at all; a second time replaces the first. Returns its bytes."""
        try:
            obstore.put(self._store, key, file, chunk_size=5 * CHUNK)
            return int(obstore.head(self._store, key)["size"])
        except BaseError as error:
            raise Unavailable("The object store does not answer.", retry_after=5) from error

    def get(self, key: str) -> Iterator[bytes]:
        """The object, chunk by chunk. Raises NotFound, before the first chunk."""
        try:
            stream = obstore.get(self._store, key).stream(min_chunk_size=CHUNK)
        except FileNotFoundError:
            raise NotFound("The file's content is gone.") from None
        except BaseError as error:
            raise Unavailable("The object store does not answer.", retry_after=5) from error
        return (bytes(chunk) for chunk in stream)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone already are no error."""
        for key in keys:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                continue
            except BaseError as error:
                raise Unavailable("The object store does not answer.", retry_after=5) from error
