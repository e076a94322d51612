"""MCP servers without the SDK, which tests make misbehave."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.pipelines.agents.http_server import http_server, respond

MODERN = "2026-07-28"

#: A result, or a function that answers the request itself.
Answer = dict[str, Any] | Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]

DISCOVERED = {
    "supportedVersions": [MODERN], "capabilities": {"tools": {}}, "resultType": "complete", "ttlMs": 0,
    "cacheScope": "public",
}  # fmt: skip


class RawServer:
    """A server that answers each method as the test says, and notes the methods that it was asked for.

    answers  by method; a list answers its requests in turn, and the last one all others
    """

    def __init__(self, **answers: Answer | list[Answer]) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {"server/discover": DISCOVERED}
        self.answers |= {name.replace("__", "/"): answer for name, answer in answers.items()}
        self.methods: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.messages: list[dict[str, Any]] = []

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if not body:
            respond(request, b"", 405)
            return
        message = json.loads(body)
        self.messages.append(message)
        self.methods.append(message["method"])
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        answer = self._answer(message["method"])
        if answer is None:
            error = {"code": -32601, "message": "Method not found"}
            respond_json(request, {"jsonrpc": "2.0", "id": message.get("id"), "error": error})
        elif callable(answer):
            answer(request, message)
        else:
            respond_json(request, {"jsonrpc": "2.0", "id": message["id"], "result": answer})

    def _answer(self, method: str) -> Answer | None:
        answer = self.answers.get(method)
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer


@contextmanager
def raw_server(server: RawServer) -> Iterator[str]:
    """Serve until the block ends. Returns the URL."""
    with http_server(server.handle) as url:
        yield f"{url}/mcp"


def respond_json(request: BaseHTTPRequestHandler, value: object, status: int = 200) -> None:
    """Send a JSON response."""
    respond(request, json.dumps(value).encode(), status, "application/json")


def listing(*tools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a result of `tools/list`."""
    return {"tools": list(tools), "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", **fields}


def tool(name: str = "t", **fields: Any) -> dict[str, Any]:
    """Return a tool's definition."""
    return {"name": name, "description": "A tool.", "inputSchema": {"type": "object"}, **fields}


def text_result(text: str = "done", **fields: Any) -> dict[str, Any]:
    """Return a result of `tools/call`."""
    return {"content": [{"type": "text", "text": text}], "resultType": "complete", **fields}
