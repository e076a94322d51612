"""An MCP server of the official SDK over real HTTP, with tools that tests call."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ToolAnnotations
from pydantic import BaseModel

READ_ONLY = ToolAnnotations(read_only_hint=True)


class Name(BaseModel):
    """What the tool `greet` asks for."""

    name: str


def ask_name() -> Elicit[Name]:
    """Ask the user for a name."""
    return Elicit("What is your name?", Name)


class Calls:
    """A server whose tools count their executions.

    hold  an event without which `wait` does not answer
    """

    def __init__(self, ttl_ms: int | None = None) -> None:
        self.count: dict[str, int] = {}
        self.hold = threading.Event()
        self.started = threading.Event()
        self.cancelled = threading.Event()
        hints: Any = {"tools/list": CacheHint(ttl_ms=ttl_ms)} if ttl_ms is not None else None
        self.server = MCPServer("tests", cache_hints=hints)
        self._add_tools()

    def _add_tools(self) -> None:
        server = self.server

        @server.tool(annotations=READ_ONLY)
        def add(a: int, b: int) -> str:
            """Add two numbers."""
            self._executed("add")
            return str(a + b)

        @server.tool()
        def buy(what: str) -> str:
            """Buy something."""
            self._executed("buy")
            return f"bought {what}"

        @server.tool()
        def fail() -> str:
            """Fail."""
            raise ToolError("the reason of the failure")

        @server.tool(structured_output=False)
        def draw() -> Image:
            """Draw."""
            return Image(data=b"012345678901", format="png")

        @server.tool()
        async def progress(context: Context) -> str:
            """Report progress."""
            await context.report_progress(1, 3, "one of three")
            await self._hold()
            return "done"

        @server.tool()
        async def wait(context: Context) -> str:
            """Wait until the test says so."""
            self._executed("wait")
            await self._hold()
            return "waited"

        @server.tool()
        def greet(name: Annotated[Name, Resolve(ask_name)]) -> str:
            """Greet a person whose name it asks for."""
            return f"Hello {name.name}"

    async def _hold(self) -> None:
        self.started.set()
        try:
            while not self.hold.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _executed(self, name: str) -> None:
        self.count[name] = self.count.get(name, 0) + 1


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """Serve an ASGI app on the loopback address until the block ends. Returns the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def sdk_server(calls: Calls) -> Iterator[str]:
    """Serve the tools; returns the URL of the endpoint."""
    with serve(calls.server.streamable_http_app()) as url:
        yield f"{url}/mcp"
