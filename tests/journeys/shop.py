"""An MCP server for tests, which counts the calls of its tool."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.pipelines.agents.mcp.raw_server import RawServer, listing, raw_server, respond_json, text_result, tool

#: Settings of processes that may call it.
ALLOW: Mapping[str, Any] = {"egress_allow": ("127.0.0.1",)}


class Shop:
    """An MCP server with the tool `buy`, which counts its calls and answers when the test lets it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.server = RawServer(tools__list=listing(tool("buy")), tools__call=self._call)
        self.url = ""

    def _call(self, request, message) -> None:
        self.calls.append(message["params"]["name"])
        self.open.wait(30)
        respond_json(request, {"jsonrpc": "2.0", "id": message["id"], "result": text_result("bought")})

    @property
    def tool(self) -> dict[str, object]:
        """The tool of a request."""
        return {"type": "mcp", "server_label": "shop", "server_url": self.url, "require_approval": "never"}

    @property
    def tool_with_approval(self) -> dict[str, object]:
        """The tool of a request, whose calls a person approves."""
        return {**self.tool, "require_approval": "always"}


@contextmanager
def serve_shop() -> Iterator[Shop]:
    """A running shop."""
    shop = Shop()
    with raw_server(shop.server) as url:
        shop.url = url
        yield shop
