"""Sign URLs of requests to S3: AWS Signature Version 4 in query parameters.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. obstore signs URLs, too, but
without the parameters that set the file name and the content type of the response.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

#: The longest validity of a signed URL that S3 accepts, in seconds: seven days.
LONGEST = 604_800


@dataclass(frozen=True, slots=True)
class Credentials:
    """The access key of an S3 service. A temporary one has a session token."""

    access_key_id: str
    secret_access_key: str
    token: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Credentials | None":
        """Return the access key in environment variables; None if obstore uses another, such as a machine's role."""
        key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if not key or not secret:
            return None
        return cls(key, secret, environment.get("AWS_SESSION_TOKEN") or environment.get("AWS_TOKEN"))


def presigned_url(
    method: str,
    url: str,
    credentials: Credentials,
    *,
    region: str,
    seconds: int,
    parameters: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> str:
    """Return the URL with a signature that is valid for so many seconds, at most a week."""
    time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    query = {
        **(parameters or {}),
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": time,
        "X-Amz-Expires": str(min(seconds, LONGEST)),
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": credentials.token} if credentials.token else {}),
    }
    encoded = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    parts = urlsplit(url)
    request = "\n".join((method, parts.path, encoded, f"host:{parts.netloc}\n", "host", "UNSIGNED-PAYLOAD"))
    text = "\n".join(("AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = hmac.new(_signing_key(credentials, scope), text.encode(), hashlib.sha256).hexdigest()
    return f"{url}?{encoded}&X-Amz-Signature={signature}"


def _signing_key(credentials: Credentials, scope: str) -> bytes:
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
