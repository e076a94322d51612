"""Say what is wrong with the object store, in words that an operator can act on.

Callers only learn that it is unavailable; the message goes to the log and to `sangha doctor`.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from obstore.exceptions import BaseError

from models.platform.errors import NotFound, Unavailable

log = logging.getLogger(__name__)

#: Seconds after which callers should retry.
RETRY_AFTER = 5

#: What the error's text contains, the first that matches, and what it means. S3's error codes come before HTTP's.
CAUSES: Sequence[tuple[str, str]] = (
    (r"NoSuchBucket", "its bucket does not exist: create it, or correct SANGHA_OBJECT_STORE"),
    (r"RequestTimeTooSkewed", "it refuses requests because this machine's clock differs from its own: set the clock"),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|status code: 401",
     "it does not accept the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (r"AccessDenied|status code: 403|[Pp]ermission denied",
     "it refuses access: the credentials may not read, write, list and delete there"),
    (r"QuotaExceeded|StorageFull|InsufficientStorage|status code: 507|[Nn]o space left|Disk quota exceeded",
     "it is full"),
    (r"BadDigest|InvalidDigest|XAmzContentChecksumMismatch|XAmzContentSHA256Mismatch",
     "it received other bytes than were sent"),
    (r"SlowDown|status code: 503|status code: 429", "it asks for fewer requests, or is overloaded"),
    (r"status code: 5\d\d", "it has an internal error"),
    (r"InvalidEncryptionType|NotImplemented|status code: 501|status code: 400",
     "it rejects the request: check the AWS_* settings, among them encryption and checksums"),
    (r"kind: Timeout|timed out|TimedOut|deadline has elapsed", "it did not answer in time"),
    (r"kind: Connect|Connection refused|dns error", "it cannot be reached"),
    (r"kind: (Request|Decode|Interrupted)|IncompleteBody|end of file|UnexpectedEof",
     "the connection broke in the middle of an object"),
)  # fmt: skip


class StoreFailure(Exception):
    """What is wrong with the store. The cause of an `Unavailable`."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise NotFound for a missing object, and Unavailable for any other error of the store in the block."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise unavailable(error) from failure_of(error)
        raise NotFound("The file's content was deleted.") from None
    except (BaseError, OSError) as error:
        raise unavailable(error) from failure_of(error)


def unavailable(error: Exception) -> Unavailable:
    """Return what callers learn of an error, and log it."""
    log.error("The object store cannot be used: %s", failure_of(error))
    return Unavailable("The object store is unavailable.", retry_after=RETRY_AFTER)


def failure_of(error: Exception) -> StoreFailure:
    """Return what an error of the store means."""
    text = str(error)
    known = next((meaning for pattern, meaning in CAUSES if re.search(pattern, text)), None)
    return StoreFailure(known or text.partition("\n")[0])
