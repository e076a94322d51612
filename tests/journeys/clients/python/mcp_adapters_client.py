"""LangChain's adapters of MCP tools, with our own MCP server. They speak an earlier revision of the protocol."""

import json

from langchain_core.tools import BaseTool
from langchain_mcp_adapters.client import MultiServerMCPClient
from steps import AGENT, BUY, KEY, URL, check_text, run

SERVER = {
    "transport": "streamable_http",
    "url": f"{URL.removesuffix('/v1')}/mcp",
    "headers": {"Authorization": f"Bearer {KEY}"},
}


async def server_tools() -> dict[str, BaseTool]:
    """Return the tools of the server by name."""
    return {tool.name: tool for tool in await MultiServerMCPClient({"sangha": SERVER}).get_tools()}


async def mcp_server() -> None:
    """List the tools of the server, and use some."""
    tools = await server_tools()
    assert set(tools) == {"ask", "memory_search", "memory_write", "jobs"}
    (jobs,) = await tools["jobs"].ainvoke({})
    assert "jobs" in json.loads(jobs["text"])


async def agent() -> None:
    """Ask a model, and an agent of the server."""
    ask = (await server_tools())["ask"]
    for arguments in ({"text": "hello"}, {"text": BUY, "model": AGENT}):
        (answer, *_) = await ask.ainvoke(arguments)
        check_text(json.loads(answer["text"])["text"] if answer["text"].startswith("{") else answer["text"])


if __name__ == "__main__":
    run(agent, mcp_server)
