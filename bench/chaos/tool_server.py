"""An MCP server in the harness whose tools count their executions. No fault affects it, so its counts are the truth.

Each agent of a tree has an address of its own, so that an execution can be attributed to it. The output of a call
is the number of its execution.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from random import Random
from typing import Any

#: Tools that may not be repeated, and one that only reads.
EFFECTS, READ_ONLY = ("buy", "rent"), "look"

#: Seconds that a call takes: mostly short ones, and some in which a worker may be killed.
DURATIONS = (0.0, 0.05, 0.3, 1.0, 3.0)

DISCOVERED = {
    "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete", "ttlMs": 0,
    "cacheScope": "public",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a tool: the key of the address that was called, and a number that no other has."""

    key: str
    tool: str
    number: int

    @property
    def output(self) -> str:
        """The output of the call."""
        return f"execution {self.number}"


class ToolServer:
    """The server's tools, and their executions so far."""

    def __init__(self, url: str = "", seed: int = 0) -> None:
        self.url = url
        self._rng = Random(seed)
        self._numbers = count(1)
        self._executions: list[Execution] = []

    @property
    def executions(self) -> Sequence[Execution]:
        """All executions, also those whose output never arrived."""
        return list(self._executions)

    def address(self, key: str) -> str:
        """Return the URL whose executions have this key."""
        return f"{self.url}/{key}"

    def answer(self, key: str, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the result of a request; None for an unknown method."""
        match message.get("method"):
            case "server/discover":
                return DISCOVERED
            case "tools/list":
                tools = [_tool(name) for name in EFFECTS] + [_tool(READ_ONLY, read_only=True)]
                return {"tools": tools, "resultType": "complete", "ttlMs": 600_000, "cacheScope": "private"}
            case "tools/call":
                return self._execute(key, message["params"]["name"])
        return None

    def _execute(self, key: str, tool: str) -> Mapping[str, Any]:
        execution = Execution(key, tool, next(self._numbers))
        self._executions.append(execution)
        time.sleep(self._rng.choice(DURATIONS))
        return {"content": [{"type": "text", "text": execution.output}], "resultType": "complete"}


def _tool(name: str, *, read_only: bool = False) -> Mapping[str, Any]:
    return {"name": name, "description": name, "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": read_only}}  # fmt: skip


@contextmanager
def tool_server(seed: int = 0, *, host: str = "127.0.0.1") -> Iterator[ToolServer]:
    """Serve on an address of this host until the block ends."""
    tools = ToolServer(seed=seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with suppress(ConnectionError):
                _handle(self, tools)

        def do_GET(self) -> None:
            with suppress(ConnectionError):
                _respond(self, 405, {})

        do_DELETE = do_GET

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    tools.url = f"http://{host}:{server.server_port}"
    threading.Thread(target=server.serve_forever, name="tool-server", daemon=True).start()
    try:
        yield tools
    finally:
        server.shutdown()
        server.server_close()


def _handle(request: BaseHTTPRequestHandler, tools: ToolServer) -> None:
    message = json.loads(request.rfile.read(int(request.headers.get("Content-Length") or 0)) or b"{}")
    if "id" not in message:
        _respond(request, 202, {})
    elif (result := tools.answer(request.path.strip("/"), message)) is None:
        error = {"code": -32601, "message": "Method not found"}
        _respond(request, 200, {"jsonrpc": "2.0", "id": message["id"], "error": error})
    else:
        _respond(request, 200, {"jsonrpc": "2.0", "id": message["id"], "result": result})


def _respond(request: BaseHTTPRequestHandler, status: int, value: Mapping[str, Any]) -> None:
    body = json.dumps(value).encode() if value else b""
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
