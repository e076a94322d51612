"""The pages at `/` and `/auth/…`: try a turn, and follow the links of e-mails. They load nothing from other hosts."""

from functools import cache
from pathlib import Path

from starlette.responses import Response

from models.platform.errors import NotFound
from web.api.request import Request

FOLDER = Path(__file__).parent

#: Media types of the files that are served.
TYPES = {
    "index.html": "text/html",
    "index.css": "text/css",
    "index.js": "text/javascript",
    "providers.js": "text/javascript",
    "auth.html": "text/html",
    "auth.js": "text/javascript",
}

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; "
    # Scripts submit the forms. Without scripts, a form would put its password into a URL.
    "form-action 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def home(request: Request) -> Response:
    """`GET /`: serve the chat page."""
    return _serve("index.html")


def auth(request: Request) -> Response:
    """`GET /auth/verify`, `GET /auth/reset` and `GET /auth/invitation`: serve the page behind the links in e-mails."""
    return _serve("auth.html")


def page(request: Request) -> Response:
    """`GET /pages/{name}`: serve a file of the pages. Raises NotFound."""
    return _serve(request.path_params["name"])


def _serve(name: str) -> Response:
    if name not in TYPES:
        raise NotFound(f"Page '{name}' not found.")
    return Response(_read(name), headers=HEADERS, media_type=TYPES[name])


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()
