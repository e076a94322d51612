"""Items of OpenAI's API about tools of MCP servers, as clients send earlier outputs back."""

#: One of each kind: a call that succeeded, two that failed, and one without an end.
ITEMS = [
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "docs", "tools": [
        {"name": "search", "description": None, "input_schema": {"type": "object"}, "annotations": None}]},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "docs", "name": "search", "arguments": "{}"},
    {"type": "mcp_call", "id": "mcp_1", "server_label": "docs", "name": "search", "arguments": "{}", "output": "found",
     "error": None, "status": "completed", "approval_request_id": "mcpr_1"},
    {"type": "mcp_call", "id": "mcp_2", "server_label": "docs", "name": "search", "arguments": "{}",
     "error": "not found", "status": "failed"},
    {"type": "mcp_call", "id": "mcp_3", "server_label": "docs", "name": "search", "arguments": "{}",
     "error": {"type": "http_error", "code": 503, "message": "away"}},
    {"type": "mcp_call", "id": "mcp_4", "server_label": "docs", "name": "search", "arguments": "{}",
     "status": "in_progress"},
]  # fmt: skip
