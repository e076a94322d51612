"""Sangha as a server of the Model Context Protocol (MCP), at `/mcp`."""
