"""`/v1/agents`, `/v1/approvals` and `/v1/mcp_servers`."""
