"""Objects in a bucket of S3, or of a service with its API.

Content of up to 8 MiB is stored with one request. Larger content is a multipart upload, of which nothing is visible
until it is complete. Each read request asks for at most 4 MiB, so that a slow client occupies no connection to the
service, and a stalled connection is detected.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from models.platform.content_disposition import content_disposition
from models.platform.errors import ConfigurationError, NotFound
from models.platform.object_errors import ALTERED, ObjectExists, ObjectStoreUnavailable, code_of, s3_error
from models.platform.presigned_urls import Credentials, presigned_url
from models.platform.s3_uploads import abort_old_uploads
from models.platform.settings import Settings
from models.platform.stored_objects import CHUNK, DELETED, ObjectInfo, OpenObject

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: The largest content that is stored with one request, and the size of a part of larger content, in bytes.
PART = 8 * CHUNK

#: Parts that are sent at the same time. Together with those that are being read, an upload needs about 40 MiB.
PARTS_AT_ONCE = 2

#: Bytes that one request reads, at most.
WINDOW = 4 * CHUNK

#: Keys that one request deletes, at most.
DELETED_AT_ONCE = 1000

#: Retries of a request without an answer, with a truncated one, or with a status of 5xx. All take 75 seconds at most.
RETRIES: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}

#: The client of a request, which carries at most PART bytes. The operator chooses the endpoint: http:// is allowed in a
#: private network.
CLIENT: "ClientConfig" = {
    "allow_http": True,
    "timeout": timedelta(seconds=60),
    "read_timeout": timedelta(seconds=15),
    "connect_timeout": timedelta(seconds=5),
}

DEFAULT_REGION = "us-east-1"

#: Error codes of services for a range that begins behind the end of an object.
BEHIND_END = ("InvalidRange", "InvalidArgument")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and the prefix of the keys in it. `url` is that of the bucket."""

    name: str
    prefix: str
    url: str
    region: str

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str]) -> "Bucket":
        """Return the bucket that SANGHA_OBJECT_STORE names, at the endpoint of the settings or of AWS_* variables."""
        parts = urlsplit(settings.object_store or "")
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
        endpoint = (
            settings.object_store_endpoint
            or environment.get("AWS_ENDPOINT_URL_S3")
            or environment.get("AWS_ENDPOINT_URL")
            or environment.get("AWS_ENDPOINT")
            or f"https://s3.{region}.amazonaws.com"
        ).rstrip("/")
        url = f"{endpoint}/{parts.netloc}"
        if not settings.object_store_path_style:
            scheme, _, host = endpoint.partition("://")
            url = f"{scheme}://{parts.netloc}.{host}"
        return cls(parts.netloc, parts.path.strip("/"), url, region)

    def url_of(self, key: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{quote(f'{self.prefix}/{key}'.lstrip('/'))}"


class S3Objects:
    """The objects of a bucket below a prefix. Thread-safe."""

    def __init__(self, bucket: Bucket, store: S3Store, credentials: Credentials | None) -> None:
        self.bucket, self._store, self._credentials = bucket, store, credentials

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str] = os.environ) -> "S3Objects":
        """Open the bucket of the settings, without a request. Raises ConfigurationError."""
        bucket = Bucket.of(settings, environment)
        try:
            store = S3Store(
                bucket.name,
                prefix=bucket.prefix or None,
                config=_config(settings, bucket, environment),
                client_options=CLIENT,
                retry_config=RETRIES,
            )
        except (BaseError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(f"SANGHA_OBJECT_STORE is {settings.object_store!r}: {reason}") from error
        return cls(bucket, store, Credentials.from_environment(environment))

    @property
    def name(self) -> str:
        """The bucket and its prefix."""
        return f"s3://{self.bucket.name}/{self.bucket.prefix}".rstrip("/")

    def put(self, key: str, chunks: Iterator[bytes], *, only_if_absent: bool = False) -> None:
        """Store an object. Raises ObjectExists, Unavailable, what the iterator raises, and ValueError.

        Only content of up to PART bytes can be stored under the condition that the key is free.
        """
        first = _take(chunks, PART + 1)
        if len(first) > PART:
            if only_if_absent:
                raise ValueError(f"only up to {PART} bytes can be stored if the key is free")
            self._put_parts(key, itertools.chain([first], chunks))
            return
        with _errors():
            try:
                obstore.put(
                    self._store, key, first, use_multipart=False, mode="create" if only_if_absent else "overwrite"
                )
            except (AlreadyExistsError, PreconditionError):
                raise ObjectExists(key) from None

    def _put_parts(self, key: str, chunks: Iterator[bytes]) -> None:
        with _errors():
            obstore.put(self._store, key, chunks, use_multipart=True, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)

    def open(self, key: str, offset: int, length: int | None) -> OpenObject:
        """Open an object for reading: its first bytes are read. Raises NotFound and Unavailable."""
        end = self.head(key).size if length is None else offset + length
        try:
            return self._open(key, offset, end)
        except _BehindEnd:
            return self._open(key, offset, min(end, self.head(key).size))

    def _open(self, key: str, offset: int, end: int) -> OpenObject:
        if offset >= end:
            return OpenObject(self.head(key).size, iter(()))
        window = self._window(key, offset, end)
        return OpenObject(window.size, self._read(key, offset, min(end, window.size), window))

    def _read(self, key: str, position: int, end: int, window: "_Window") -> Iterator[bytes]:
        while True:
            yield from (window.content[start : start + CHUNK] for start in range(0, len(window.content), CHUNK))
            position += len(window.content)
            if position >= end:
                return
            window = self._window(key, position, end, window.version)

    def _window(self, key: str, position: int, end: int, version: str | None = None) -> "_Window":
        options: GetOptions = {"range": (position, min(end, position + WINDOW))}
        if version is not None:
            options["if_match"] = version
        with _errors():
            result = obstore.get(self._store, key, options=options)
            return _Window(bytes(result.bytes()), result.meta["size"], result.meta["e_tag"])

    def head(self, key: str) -> ObjectInfo:
        """Return size and time of an object. Raises NotFound and Unavailable."""
        try:
            with _errors():
                return _info(obstore.head(self._store, key))
        except NotFound:
            next(self.list(key, ""), None)  # raises Unavailable for a missing bucket: a HEAD has the same 404 for both
            raise

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, many in a request. Missing ones are ignored. Raises Unavailable."""
        remaining = iter(keys)
        while batch := list(itertools.islice(remaining, DELETED_AT_ONCE)):
            try:
                with _errors():
                    obstore.delete(self._store, batch)
            except NotFound:
                self._delete_each(batch)

    def _delete_each(self, keys: Iterable[str]) -> None:
        """Delete objects one by one: the service has rejected a request for several because one of them is missing."""
        for key in keys:
            try:
                with _errors():
                    obstore.delete(self._store, key)
            except NotFound:
                continue

    def list(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """Return the objects below a prefix, behind a key, in the order of their keys. Raises Unavailable."""
        with _errors():
            pages = obstore.list(self._store, prefix.strip("/") or None, offset=after or None, chunk_size=1000)
        while True:
            with _errors():
                page = next(pages, None)
            if page is None:
                return
            yield from (_info(found) for found in page)

    def delete_unfinished(self, seconds: float) -> int:
        """Abort multipart uploads that began more than so many seconds ago. Returns how many. Raises Unavailable.

        Without keys in the environment none is aborted: a rule of the bucket has to do it.
        """
        if self._credentials is None:
            return 0
        bucket = self.bucket
        prefix = f"{bucket.prefix}/" if bucket.prefix else ""
        return abort_old_uploads(bucket.url, prefix, self._credentials, region=bucket.region, seconds=seconds)

    def presign(self, key: str, seconds: int, filename: str, content_type: str) -> str | None:
        """Return a URL that serves the object as a file. None without keys in the environment."""
        if self._credentials is None:
            return None
        parameters = {
            "response-content-disposition": content_disposition(filename),
            "response-content-type": content_type,
        }
        url, region = self.bucket.url_of(key), self.bucket.region
        return presigned_url("GET", url, self._credentials, region=region, seconds=seconds, parameters=parameters)


@dataclass(frozen=True, slots=True)
class _Window:
    """Some bytes of an object, with the object's size and version."""

    content: bytes
    size: int
    version: str | None


class _BehindEnd(Exception):
    """The requested range begins or ends behind the object's end."""


@contextmanager
def _errors() -> Iterator[None]:
    """Convert obstore's errors to NotFound, ObjectStoreUnavailable and _BehindEnd."""
    try:
        yield
    except FileNotFoundError as error:
        if code_of(error) == "NoSuchBucket":
            raise s3_error(error) from error
        raise NotFound(DELETED) from None
    except PreconditionError as error:  # another object has the key since the first bytes were read
        raise ObjectStoreUnavailable(ALTERED) from error
    except BaseError as error:
        if code_of(error) in BEHIND_END:
            raise _BehindEnd from None
        raise s3_error(error) from error


def _take(chunks: Iterator[bytes], size: int) -> bytes:
    """Return the first chunks, joined: at least `size` bytes, or the whole content if it is shorter."""
    taken = bytearray()
    for chunk in chunks:
        taken += chunk
        if len(taken) >= size:
            break
    return bytes(taken)


def _info(found: Any) -> ObjectInfo:
    return ObjectInfo(found["path"], found["size"], found["last_modified"])


def _config(settings: Settings, bucket: Bucket, environment: Mapping[str, str]) -> "S3Config":
    """Return the configuration that obstore does not read from environment variables."""
    config: S3Config = {"region": bucket.region, "virtual_hosted_style_request": not settings.object_store_path_style}
    endpoint = bucket.url if not settings.object_store_path_style else bucket.url.removesuffix(f"/{bucket.name}")
    config["endpoint"] = endpoint
    if "AWS_CHECKSUM_ALGORITHM" not in environment:
        config["checksum_algorithm"] = "SHA256"
    if settings.object_store_sse is not None:
        algorithm, key = _encryption(settings.object_store_sse)
        config["server_side_encryption"] = algorithm
        if key:
            config["sse_kms_key_id"] = key
    return config


def _encryption(setting: str) -> tuple[str, str]:
    """Return the algorithm of SANGHA_OBJECT_STORE_SSE, and the id of the KMS key, or an empty text without one."""
    if setting == "AES256":
        return setting, ""
    return "aws:kms", setting.removeprefix("aws:kms").removeprefix(":")
