"""Describe the outcomes of requests to MCP servers. Does not load the SDK, which takes 40 MB."""

from dataclasses import dataclass, field
from typing import Any, Literal

#: Seconds that a list is cached where its server says nothing, at least, and at most.
DEFAULT_TTL, MIN_TTL, MAX_TTL = 300.0, 30.0, 86_400.0

#: The code of an answer that does not follow the protocol: "Invalid Request" (JSON-RPC 2.0).
INVALID = -32600

#: `http_error`: the server cannot be reached, or answers with the HTTP status of an error. `mcp_protocol_error`: it
#: answers with an error of the protocol, or does not follow it. `timeout`: it does not answer. `refused`: no request
#: may be sent to it.
FaultType = Literal["http_error", "mcp_protocol_error", "timeout", "refused"]


class ServerFault(Exception):
    """A request to a server has failed.

    code       the HTTP status, or the code of the protocol's error
    uncertain  whether a tool may have been called: the call was sent, and no answer to it came
    unsent     whether the request surely has not reached the server
    """

    def __init__(
        self, type_: FaultType, message: str, *, code: int | None = None, uncertain: bool = False, unsent: bool = False
    ) -> None:
        super().__init__(message)
        self.type = type_
        self.message = message
        self.code = code
        self.uncertain = uncertain
        self.unsent = unsent

    @property
    def error(self) -> dict[str, Any]:
        """The error as OpenAI's `mcp_call` shows it. The code is an HTTP status, 0 without one, or the protocol's."""
        if self.type == "mcp_protocol_error":
            return {"type": self.type, "code": INVALID if self.code is None else self.code, "message": self.message}
        return {"type": "http_error", "code": self.code or 0, "message": self.message}


@dataclass(frozen=True, slots=True)
class ServerTools:
    """What a server has listed: `tools` as they are stored; `left_out` the number of others; `ttl` in seconds."""

    version: str
    tools: list[dict[str, Any]] = field(default_factory=list)
    ttl: float = DEFAULT_TTL
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The answer to a call: its output, and if it is an error, of which type."""

    text: str
    error: Literal["mcp_tool_execution_error", "input_required"] | None = None


@dataclass(slots=True)
class CallState:
    """What is known of a call while it runs. The event loop writes it, the job's thread reads it."""

    progress: tuple[float, float | None, str] | None = None
    task_id: str | None = None
