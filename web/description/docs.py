"""`/docs`: the description of every address, to read and to try. Swagger UI, served from its installed package."""

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from starlette.responses import Response

from models.platform.errors import NotFound
from web import home
from web.routing import Call

#: What carries Swagger UI's files. Nothing of it is imported: its framework stays asleep.
CARRIER = "flask-swagger-ui"

#: What there is to serve, as what, and whether it is ours or Swagger UI's.
OURS = {"docs.js": "text/javascript", "docs.css": "text/css"}
THEIRS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

#: The page's own rules, and a day for what changes with a release only.
LASTING = {**home.HEADERS, "cache-control": "public, max-age=86400"}


def docs(call: Call) -> Response:
    """`GET /docs`: this page."""
    return Response(_ours("docs.html"), headers=home.HEADERS, media_type="text/html")


def asset(call: Call) -> Response:
    """`GET /docs/{name}`: a file of the page. Raises NotFound."""
    name = call.path["name"]
    if name in OURS:
        return Response(_ours(name), headers=home.HEADERS, media_type=OURS[name])
    if name in THEIRS:
        return Response(_theirs(name), headers=LASTING, media_type=THEIRS[name])
    raise NotFound(f"There is no page '{name}'.")


@cache
def _ours(name: str) -> bytes:
    return (home.FOLDER / name).read_bytes()


@cache
def _theirs(name: str) -> bytes:
    return Path(str(distribution(CARRIER).locate_file(f"flask_swagger_ui/dist/{name}"))).read_bytes()
