"""Describe failures of object stores to operators, with what to do. Callers only get a 503."""

import errno
import re

from models.platform.errors import SanghaError, Unavailable

#: Seconds after which callers may retry: an outage may end by itself, other failures need an operator.
RETRY_SOON, RETRY_LATER = 5, 60


class ObjectStoreUnavailable(Unavailable):
    """The object store failed. `reason` says why, and what to do; it is for operators."""

    def __init__(self, reason: str, *, retry_after: int = RETRY_SOON) -> None:
        super().__init__("File storage is temporarily unavailable.", retry_after=retry_after)
        self.reason = reason


class ObjectExists(SanghaError):
    """Another object has the key."""


class DamagedObject(SanghaError):
    """An object's content differs from what was stored."""


SLOW_DOWN = "The S3 service answers 503 SlowDown: raise its request limits, or run fewer workers."
SKEWED = "The clock of this machine differs from that of the S3 service by more than 15 minutes: synchronise it (NTP)."
CREDENTIALS = (
    "The S3 service does not accept the credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_SESSION_TOKEN."
)
DENIED = (
    "The S3 service refuses access: the credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket "
    "for the bucket and prefix of SANGHA_OBJECT_STORE."
)
NO_BUCKET = "The bucket of SANGHA_OBJECT_STORE does not exist: create it, or correct its name."
FULL = "The S3 service has no space left, or the bucket's quota is used up: add space or raise the quota."
REGION = "The bucket is in another region: set AWS_REGION."
KMS = "The S3 service cannot use the encryption key: check SANGHA_OBJECT_STORE_SSE and the key's policy."
ALTERED = "The content was altered on its way to the S3 service: check the network and proxies between."
NO_CREDENTIALS = "There are no credentials for the S3 service: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
TLS = (
    "The TLS certificate of the S3 service cannot be verified: check SANGHA_OBJECT_STORE_ENDPOINT and the certificate."
)
AWAY = "The S3 service cannot be reached: check SANGHA_OBJECT_STORE_ENDPOINT, DNS and the network."
SLOW = "The S3 service did not answer in time: check its load and the network."
CUT = "The connection to the S3 service broke in the middle of an answer: check the network."

#: Error code of S3 → reason, seconds until a retry.
BY_CODE: dict[str, tuple[str, int]] = {
    "SlowDown": (SLOW_DOWN, RETRY_SOON),
    "TooManyRequests": (SLOW_DOWN, RETRY_SOON),
    "RequestTimeTooSkewed": (SKEWED, RETRY_LATER),
    "InvalidAccessKeyId": (CREDENTIALS, RETRY_LATER),
    "SignatureDoesNotMatch": (CREDENTIALS, RETRY_LATER),
    "ExpiredToken": (CREDENTIALS, RETRY_LATER),
    "InvalidToken": (CREDENTIALS, RETRY_LATER),
    "AccessDenied": (DENIED, RETRY_LATER),
    "NoSuchBucket": (NO_BUCKET, RETRY_LATER),
    "QuotaExceeded": (FULL, RETRY_LATER),
    "InsufficientStorage": (FULL, RETRY_LATER),
    "XMinioStorageFull": (FULL, RETRY_LATER),
    "XMinioAdminBucketQuotaExceeded": (FULL, RETRY_LATER),
    "PermanentRedirect": (REGION, RETRY_LATER),
    "AuthorizationHeaderMalformed": (REGION, RETRY_LATER),
    "BadDigest": (ALTERED, RETRY_SOON),
    "InvalidDigest": (ALTERED, RETRY_SOON),
    "XAmzContentSHA256Mismatch": (ALTERED, RETRY_SOON),
    "XAmzContentChecksumMismatch": (ALTERED, RETRY_SOON),
}

#: Status of an answer without a known code → reason, seconds until a retry.
BY_STATUS: dict[str, tuple[str, int]] = {
    "301": (REGION, RETRY_LATER),
    "401": (CREDENTIALS, RETRY_LATER),
    "403": (DENIED, RETRY_LATER),
    "429": (SLOW_DOWN, RETRY_SOON),
    "503": (SLOW_DOWN, RETRY_SOON),
    "507": (FULL, RETRY_LATER),
}

#: Text of a failure without an answer → reason, seconds until a retry. The first that matches counts.
BY_TEXT: tuple[tuple[str, tuple[str, int]], ...] = (
    ("certificate", (TLS, RETRY_LATER)),
    ("kind: Timeout", (SLOW, RETRY_SOON)),
    ("timed out", (SLOW, RETRY_SOON)),
    ("kind: Connect", (AWAY, RETRY_SOON)),
    ("kind: ", (CUT, RETRY_SOON)),
)

#: The service from which a machine in AWS gets the credentials of its role, if environment variables have none.
METADATA_SERVICE = "//169.254."

CODE = re.compile(r"""(?:<Code>|code: ")([A-Za-z0-9.]+)[<"]""")
STATUS = re.compile(r"status code: (\d{3})")


def s3_error(error: Exception) -> ObjectStoreUnavailable:
    """Return the error for a failed request. Errors of obstore have the code and the status only in their text."""
    reason, retry_after = _classify(str(error))
    return ObjectStoreUnavailable(reason, retry_after=retry_after)


def _classify(text: str) -> tuple[str, int]:
    code, status = CODE.search(text), STATUS.search(text)
    if code and code[1].startswith("KMS"):
        return KMS, RETRY_LATER
    if code and code[1] in BY_CODE:
        return BY_CODE[code[1]]
    if METADATA_SERVICE in text:
        return NO_CREDENTIALS, RETRY_LATER
    if status and status[1] in BY_STATUS:
        return BY_STATUS[status[1]]
    if status:
        return f"The S3 service answers {status[1]}{f' {code[1]}' if code else ''}: see its logs.", RETRY_SOON
    matches = (found for part, found in BY_TEXT if part in text)
    return next(matches, (f"The S3 service failed: {text.splitlines()[0][:200]}", RETRY_SOON))


def code_of(error: Exception) -> str | None:
    """Return the error code in the answer of the S3 service; None without one."""
    code = CODE.search(str(error))
    return code[1] if code else None


def folder_error(error: OSError, folder: object) -> ObjectStoreUnavailable:
    """Return the error for a failed access to the folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = f"No space is left for the folder {folder}: add space."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"The folder {folder} cannot be used ({error.strerror}): give its user access."
    else:
        reason = f"The folder {folder} cannot be used: {error.strerror}."
    return ObjectStoreUnavailable(reason, retry_after=RETRY_LATER)
