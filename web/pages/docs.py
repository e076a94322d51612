"""`/docs`: Swagger UI for the OpenAPI document, served from its installed package."""

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from starlette.responses import Response

from models.platform.errors import NotFound
from web.api.request import Request
from web.pages import home

#: The distribution that contains Swagger UI's files. None of its Python code is imported.
DISTRIBUTION = "flask-swagger-ui"

#: Media types of our files and of Swagger UI's.
OWN_FILES = {"docs.js": "text/javascript", "docs.css": "text/css"}
SWAGGER_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

#: Swagger UI's files change only with a release, so browsers may keep them for a day.
SWAGGER_HEADERS = {**home.HEADERS, "cache-control": "public, max-age=86400"}


def docs(request: Request) -> Response:
    """`GET /docs`: serve the API reference."""
    return Response(_read_own("docs.html"), headers=home.HEADERS, media_type="text/html")


def asset(request: Request) -> Response:
    """`GET /docs/{name}`: serve a file of the API reference. Raises NotFound."""
    name = request.path_params["name"]
    if name in OWN_FILES:
        return Response(_read_own(name), headers=home.HEADERS, media_type=OWN_FILES[name])
    if name in SWAGGER_FILES:
        return Response(_read_swagger(name), headers=SWAGGER_HEADERS, media_type=SWAGGER_FILES[name])
    raise NotFound(f"File '{name}' not found.")


@cache
def _read_own(name: str) -> bytes:
    return (home.FOLDER / name).read_bytes()


@cache
def _read_swagger(name: str) -> bytes:
    return Path(str(distribution(DISTRIBUTION).locate_file(f"flask_swagger_ui/dist/{name}"))).read_bytes()
