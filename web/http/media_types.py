"""Check the media type of requests without credentials, which pages of other origins can make browsers send.

A browser sends some requests to another origin without asking it first: those of HTML forms, and those that scripts
send with the same media types (CORS-safelisted, Fetch standard 2.2.2). JSON is not among these.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

#: Headers that browsers add to such requests, and other clients do not.
BROWSER_HEADERS = ("origin", "sec-fetch-site")


def check_media_type(headers: Headers) -> None:
    """Check that a body is JSON. Raises HTTPException 415.

    A form's type, curl's default, is accepted from clients other than browsers, and so is none.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return
    from_browser = any(name in headers for name in BROWSER_HEADERS)
    if from_browser or media_type == "text/plain" or media_type.startswith("multipart/"):
        raise HTTPException(415, "Send the body as JSON, with `content-type: application/json`")
