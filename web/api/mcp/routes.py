"""The rows of the route table for the MCP server."""

from web.access.rights import Rights
from web.api.mcp import endpoint, metadata
from web.api.mcp.metadata import ProtectedResource
from web.api.routing import Route
from web.http.public_urls import METADATA_PATH

MCP_ROUTES = (
    Route("POST", "/mcp", endpoint.serve, Rights.OPERATIONS, max_body=endpoint.MAX_BODY, protected_path="/mcp",
          in_openapi=False),
    *(Route("GET", f"{METADATA_PATH}{path}", metadata.read, Rights.PUBLIC, response=ProtectedResource,
            purpose="documents") for path in ("", "/mcp")),
)  # fmt: skip
