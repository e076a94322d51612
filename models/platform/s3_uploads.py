"""Abort multipart uploads of crashed writers. obstore cannot list uploads, so these are requests with signed URLs."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpcore

from models.platform.object_errors import s3_error
from models.platform.presigned_urls import Credentials, presigned_url

#: Seconds to wait for an answer.
TIMEOUT = {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": 5.0}

#: Seconds for which a request's signature is valid.
SIGNED_FOR = 60


@dataclass(frozen=True, slots=True)
class _Upload:
    """A multipart upload that is not complete."""

    key: str
    id: str
    began_at: datetime


def abort_old_uploads(bucket_url: str, prefix: str, credentials: Credentials, *, region: str, seconds: float) -> int:
    """Abort the uploads of keys with a prefix that began more than so many seconds ago. Returns how many."""
    before = datetime.now(UTC) - timedelta(seconds=seconds)
    service = _Service(bucket_url, credentials, region)
    old = [upload for upload in service.uploads(prefix) if upload.began_at < before]
    for upload in old:
        service.call("DELETE", f"{bucket_url}/{quote(upload.key)}", {"uploadId": upload.id}, missing=True)
    return len(old)


@dataclass(frozen=True, slots=True)
class _Service:
    """The S3 service of a bucket."""

    bucket_url: str
    credentials: Credentials
    region: str

    def call(self, method: str, url: str, parameters: dict[str, str], *, missing: bool = False) -> bytes:
        """Send a request and return the answer's body. Raises Unavailable, unless the object may be missing."""
        signed = presigned_url(
            method, url, self.credentials, region=self.region, seconds=SIGNED_FOR, parameters=parameters
        )
        try:
            response = httpcore.request(method, signed, extensions={"timeout": TIMEOUT})
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            kind = "Timeout" if isinstance(error, httpcore.TimeoutException) else "Connect"
            raise s3_error(OSError(f"kind: {kind}")) from error
        if response.status >= 300 and not (missing and response.status == 404):
            raise s3_error(
                OSError(f"status code: {response.status} {response.content[:2000].decode(errors='replace')}")
            )
        return response.content

    def uploads(self, prefix: str) -> Iterator[_Upload]:
        """Return the incomplete uploads of keys with a prefix, page by page."""
        markers: dict[str, str] = {}
        while True:
            answer = self.call("GET", self.bucket_url, {"uploads": "", "prefix": prefix, **markers})
            root = ElementTree.fromstring(answer)  # noqa: S314 - of the operator's own service
            for found in root.iterfind("{*}Upload"):
                began_at = datetime.fromisoformat(_text(found, "Initiated"))
                yield _Upload(_text(found, "Key"), _text(found, "UploadId"), began_at)
            if _text(root, "IsTruncated") != "true":
                return
            markers = {
                "key-marker": _text(root, "NextKeyMarker"),
                "upload-id-marker": _text(root, "NextUploadIdMarker"),
            }


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
