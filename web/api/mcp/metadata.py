"""`GET /.well-known/oauth-protected-resource/mcp`: how clients authorize themselves at `/mcp` (RFC 9728)."""

from typing import Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from web.api.request import Request
from web.http.public_urls import base_url
from web.http.responses import json_response


class ProtectedResource(TypedDict):
    """The metadata of the resource. Without authorization servers: clients send an API key of this server."""

    resource: str
    resource_name: str
    authorization_servers: list[str]
    bearer_methods_supported: list[Literal["header"]]
    resource_documentation: str


def read(request: Request) -> Response:
    """`GET /.well-known/oauth-protected-resource`: read the OAuth metadata of the MCP server."""
    base = base_url(request.platform.settings, request.headers)
    metadata: ProtectedResource = {
        "resource": f"{base}/mcp",
        "resource_name": "Sangha",
        "authorization_servers": [],
        "bearer_methods_supported": ["header"],
        "resource_documentation": f"{base}/docs",
    }
    return json_response(metadata)
