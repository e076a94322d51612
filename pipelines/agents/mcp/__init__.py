"""The MCP client: lists and calls the tools of servers over HTTP."""
