"""The routes of registered MCP servers."""

from web.access.rights import Rights
from web.api.agents import mcp_servers
from web.api.agents.mcp_servers import McpServerObject
from web.api.routing import Route
from web.http.paging import Listing
from web.http.responses import Page

MCP_SERVER_ROUTES = (
    Route("POST", "/v1/mcp_servers", mcp_servers.create, Rights.ADMIN, body=mcp_servers.CreateMcpServer,
          response=McpServerObject, status=201, creates=True),
    Route("GET", "/v1/mcp_servers", mcp_servers.list_servers, Rights.READ, query=Listing,
          response=Page[McpServerObject]),
    Route("GET", "/v1/mcp_servers/{server_id}", mcp_servers.read, Rights.READ, response=McpServerObject),
    Route("PATCH", "/v1/mcp_servers/{server_id}", mcp_servers.update, Rights.ADMIN, body=mcp_servers.UpdateMcpServer,
          response=McpServerObject),
    Route("DELETE", "/v1/mcp_servers/{server_id}", mcp_servers.delete, Rights.ADMIN,
          response=mcp_servers.McpServerDeleted, cost=0),
    Route("POST", "/v1/mcp_servers/{server_id}/test", mcp_servers.test, Rights.INFERENCE,
          response=mcp_servers.McpServerTest),
)  # fmt: skip
