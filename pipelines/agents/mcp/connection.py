"""Connect to an MCP server, run one operation, and turn whatever fails into a ServerFault.

The SDK speaks the revisions: 2026-07-28, where each request stands alone, and the earlier ones, which begin with
`initialize` and may have a session. A connection lives as long as one operation, so nothing of a server outlives a job.
"""

import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from typing import Any, TypeVar

import anyio
import httpx2
from mcp import MCPError
from mcp.client import Client
from mcp.client.extension import advertise
from mcp.client.session import ClientRequestContext
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    PARSE_ERROR,
    ElicitRequestParams,
    ElicitResult,
    Implementation,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from pipelines.agents.bounded_stream import ByteBudget, ResponseTooLarge
from pipelines.agents.egress import EgressPolicy, EgressRefused, Resolver, guarded_client, resolve
from pipelines.agents.mcp.outcomes import ServerFault
from pipelines.agents.mcp.transport import NOT_SENT, McpTransport
from pipelines.agents.mcp.values import clean_text

#: Bytes that a server may send during one operation.
MAX_BYTES = 8 << 20

#: Seconds for the end of a connection after the operation: of a session, or of a call that is cancelled.
CLOSE_TIMEOUT = 2.0

#: Characters of a server's error message that are kept.
MAX_MESSAGE = 2_000

TASKS = "io.modelcontextprotocol/tasks"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A server to connect to: by its URL with these headers, or by the command of the operator.

    version  the revision that it spoke before; None: ask it
    """

    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    version: str | None = None


@dataclass(slots=True)
class Connection:
    """An open connection. `asked` has what the server wanted to ask the user."""

    client: Client
    asked: list[str]

    @property
    def version(self) -> str:
        """The revision of the protocol."""
        return self.client.protocol_version


Operation = Callable[[Connection], Awaitable[Value]]


async def operate(
    target: Target, policy: EgressPolicy, operation: Operation[Value], *, timeout: float, resolver: Resolver = resolve
) -> Value:
    """Connect, return what the operation returns, and disconnect. Raises ServerFault.

    If it is cancelled, the operation is cancelled first: the connection has CLOSE_TIMEOUT seconds to tell the server.

    timeout  seconds for everything
    """
    transport = McpTransport(policy, ByteBudget(MAX_BYTES), resolver)
    transport.called = target.command is not None  # nothing is noted of a program
    results: list[Value] = []
    whole = anyio.CancelScope(deadline=anyio.current_time() + timeout, shield=True)
    part = anyio.CancelScope()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_pass_on_cancellation, whole, part)
            with whole:
                async with _connected(target, transport, policy, timeout) as connection:
                    with part:
                        results.append(await operation(connection))
                    whole.deadline = anyio.current_time() + CLOSE_TIMEOUT
            tasks.cancel_scope.cancel()
    except Exception as error:
        if not results:
            raise _fault(_cause(error), transport, target) from error
    if not results:
        message = f"The server did not answer within {timeout:g} seconds."
        raise ServerFault("timeout", message, uncertain=transport.called)
    return results[0]


async def _pass_on_cancellation(whole: anyio.CancelScope, part: anyio.CancelScope) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        part.cancel()
        whole.deadline = min(whole.deadline, anyio.current_time() + CLOSE_TIMEOUT)


@asynccontextmanager
async def _connected(
    target: Target, transport: McpTransport, policy: EgressPolicy, timeout: float
) -> AsyncIterator[Connection]:
    asked: list[str] = []

    async def refuse(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(clean_text(params.message)[:MAX_MESSAGE])
        return ElicitResult(action="cancel")

    async with guarded_client(policy, ByteBudget(MAX_BYTES), silence=timeout, transport=transport) as http:
        http.headers.update(target.headers)
        client = Client(
            _sdk_transport(target, http),
            mode=_mode(target.version),
            cache=None,
            client_info=Implementation(name="sangha", version=package_version("sangha")),
            elicitation_callback=refuse,
            extensions=[advertise(TASKS)],
        )
        async with client:
            yield Connection(client, asked)


def _sdk_transport(target: Target, http: httpx2.AsyncClient) -> Any:
    if target.command is None:
        return streamable_http_client(target.url, http_client=http)
    program, *arguments = shlex.split(target.command)
    return stdio_client(StdioServerParameters(command=program, args=arguments))


def _mode(version: str | None) -> str:
    if version is None:
        return "auto"
    return version if version in MODERN_PROTOCOL_VERSIONS else "legacy"


def _cause(error: BaseException) -> BaseException:
    """Return the first error of nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _fault(error: BaseException, transport: McpTransport, target: Target) -> ServerFault:
    """Return what an error means. What the transport has noted is more precise than what the SDK makes of it."""
    if isinstance(error, ServerFault):
        return error
    if transport.fault is not None:
        return _transport_fault(transport.fault, uncertain=transport.called)
    if isinstance(error, MCPError):
        return _protocol_fault(error, transport)
    if isinstance(error, ValidationError | RuntimeError | ValueError):
        message = "The server's answer does not follow the protocol: " + _first_line(error)
        return ServerFault("mcp_protocol_error", message)
    if isinstance(error, OSError) and target.command is not None:
        return ServerFault("refused", f"The server's command cannot be run: {error.strerror}.", unsent=True)
    return ServerFault("http_error", f"The server failed: {type(error).__name__}.", uncertain=transport.called)


def _transport_fault(error: Exception, *, uncertain: bool) -> ServerFault:
    if isinstance(error, EgressRefused):
        return ServerFault("refused", str(error), unsent=True)
    if isinstance(error, NOT_SENT):
        return ServerFault("http_error", f"The server cannot be reached: {_first_line(error)}", unsent=True)
    if isinstance(error, ResponseTooLarge):
        return ServerFault("http_error", str(error))
    return ServerFault("http_error", f"The connection to the server failed: {_first_line(error)}", uncertain=uncertain)


def _protocol_fault(error: MCPError, transport: McpTransport) -> ServerFault:
    """Return the fault of an error of the protocol, or of an HTTP status, for which the SDK makes one up."""
    if transport.status is not None and error.code == INTERNAL_ERROR:
        uncertain = transport.called and transport.status >= 500
        text = f"The server answered with the HTTP status {transport.status}."
        return ServerFault("http_error", text, code=transport.status, uncertain=uncertain)
    if error.code == PARSE_ERROR:
        return ServerFault("mcp_protocol_error", "The server's answer is not a message of the protocol.")
    uncertain = transport.called and error.code == CONNECTION_CLOSED
    message = clean_text(error.message)[:MAX_MESSAGE]
    return ServerFault("mcp_protocol_error", message, code=error.code, uncertain=uncertain)


def _first_line(error: BaseException) -> str:
    return clean_text(str(error)).strip().partition("\n")[0][:MAX_MESSAGE] or type(error).__name__
