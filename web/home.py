"""The page at `/`: a person's way to try a turn. Its files come with the package; it needs nothing from elsewhere."""

from functools import cache
from pathlib import Path

from starlette.responses import Response

from models.platform.errors import NotFound
from web.routing import Call

FOLDER = Path(__file__).parent / "pages"

#: What there is to serve, and as what.
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
    # Scripts send the forms. Where none has run, a form would put its password into an address.
    "form-action 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def home(call: Call) -> Response:
    """`GET /`."""
    return serve("index.html")


def page(call: Call) -> Response:
    """`GET /pages/{name}`. Raises NotFound."""
    return serve(call.path["name"])


def serve(name: str) -> Response:
    """One of the files. Raises NotFound."""
    if name not in TYPES:
        raise NotFound(f"There is no page '{name}'.")
    return Response(_read(name), headers=HEADERS, media_type=TYPES[name])


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()
