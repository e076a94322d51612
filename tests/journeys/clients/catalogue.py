"""The clients that are tested, and the environment of each."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson

from tests.journeys.clients.environments import JAVASCRIPT, PYTHON


@dataclass(frozen=True)
class Client:
    """A client and its script.

    name         as in the table of the guide
    package      the package whose version the table shows
    script       in `python/` or `javascript/`
    environment  `javascript`, or the name of a lock file in `python/`
    """

    name: str
    package: str
    script: str
    environment: str

    @property
    def is_core(self) -> bool:
        """Whether `make test` tries it; `make clients` tries all."""
        return self.environment in ("core", "javascript")

    @cached_property
    def version(self) -> str:
        """The locked version. Raises LookupError without one."""
        if self.environment == "javascript":
            return _javascript_version(self.package)
        return _python_version(PYTHON / f"{self.environment}.txt", self.package)


CLIENTS = (
    Client("OpenAI Python", "openai", "openai_client.py", "core"),
    Client("OpenAI Agents SDK, Python", "openai-agents", "openai_agents_client.py", "core"),
    Client("Pydantic AI", "pydantic-ai-slim", "pydantic_ai_client.py", "core"),
    Client("LangChain, Python", "langchain-openai", "langchain_client.py", "core"),
    Client("LangGraph, Python", "langgraph", "langgraph_client.py", "core"),
    Client("LangChain MCP adapters", "langchain-mcp-adapters", "mcp_adapters_client.py", "mcp-1"),
    Client("llm", "llm", "llm_client.py", "core"),
    Client("Instructor", "instructor", "instructor_client.py", "openai-3"),
    Client("LiteLLM", "litellm", "litellm_client.py", "openai-3"),
    Client("LlamaIndex", "llama-index-llms-openai-like", "llama_index_client.py", "openai-2"),
    Client("Haystack", "haystack-ai", "haystack_client.py", "openai-2"),
    Client("AutoGen", "autogen-agentchat", "autogen_client.py", "openai-2"),
    Client("Semantic Kernel", "semantic-kernel", "semantic_kernel_client.py", "openai-2"),
    Client("Open WebUI, in Chromium", "open-webui", "open_webui_client.py", "open-webui"),
    Client("OpenAI Node", "openai", "openai.mjs", "javascript"),
    Client("OpenAI Agents SDK, JavaScript", "@openai/agents", "agents.mjs", "javascript"),
    Client("AI SDK, OpenAI provider", "@ai-sdk/openai", "ai-sdk.mjs", "javascript"),
    Client("AI SDK, compatible provider", "@ai-sdk/openai-compatible", "ai-sdk-compatible.mjs", "javascript"),
    Client("LangChain, JavaScript", "@langchain/openai", "langchain.mjs", "javascript"),
)


def _python_version(lock: Path, package: str) -> str:
    pin = re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text(), re.MULTILINE)
    if pin is None:
        raise LookupError(f"{lock.name} has no {package}: run `make lock`")
    return pin[1]


def _javascript_version(package: str) -> str:
    packages = orjson.loads((JAVASCRIPT / "package-lock.json").read_bytes())["packages"]
    return str(packages[f"node_modules/{package}"]["version"])
