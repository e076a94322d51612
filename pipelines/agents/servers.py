"""The MCP servers whose tools a turn may call: of its request, its account, the operator, and the platform itself."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from models.platform.database import Connection
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents.credentials import digest_of

#: The label of the tools that the platform itself has, and that of the agents which a turn may delegate to.
PLATFORM_LABEL, AGENTS_LABEL = "sangha", "agents"

ServerSource = Literal["request", "account", "operator", "platform"]


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool of a server, as it may be offered to the model.

    input_schema  a schema that the engine's grammars accept
    read_only     whether a call changes nothing, so that it may be repeated: only a trusted server's word counts
    idempotent    whether a repeated call has no further effect; likewise
    changed       whether its definition differs from the one that was pinned: a call needs an approval
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False
    idempotent: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class ServerReference:
    """A server that a turn may call.

    url               None for the platform's tools, and for a program that the operator has configured
    credentials       sealed, see `pipelines.agents.credentials`
    allowed_tools     names, or `{"tool_names", "read_only"}` as in OpenAI's API; None: all
    require_approval  "always", "never", or OpenAI's filters
    key               of its cached tool list: a digest of its address and credentials
    trusted           whether its annotations count: see decision 60
    tools             what it offers, where that needs no question: the platform's own tools
    """

    label: str
    source: ServerSource
    url: str | None
    credentials: str | None = None
    allowed_tools: Any = None
    require_approval: Any = "always"
    key: str = ""
    trusted: bool = False
    tools: Sequence[ListedTool] | None = None


def references(
    settings: Settings, connection: Connection, response: Response, tools: Sequence[Mapping[str, Any]]
) -> list[ServerReference]:
    """Return the servers of a turn's tools. A label that nothing is known of is left out."""
    sealed = response.request.get("mcp_credentials") or {}
    return [_inline(tool, sealed.get(tool["server_label"])) for tool in tools if tool["type"] == "mcp"]


def server_key(url: str, credentials: str | None) -> str:
    """Return the key under which the tools of a server are cached: others' credentials may be offered other tools."""
    return hashlib.sha256(f"{url}\n{digest_of(credentials)}".encode()).hexdigest()


def _inline(tool: Mapping[str, Any], credentials: str | None) -> ServerReference:
    url = tool["server_url"]
    approval = tool.get("require_approval") or "always"
    key = server_key(url, credentials)
    return ServerReference(tool["server_label"], "request", url, credentials, tool.get("allowed_tools"), approval, key)
