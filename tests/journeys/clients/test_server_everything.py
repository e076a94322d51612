"""Our MCP client calls the tools of the reference server in JavaScript, which speaks the revision 2025-11-25."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.harness.waiting import wait_until
from models.platform.settings import Settings
from ops.rabbitmq import free_ports
from pipelines.agents.mcp import client
from pipelines.agents.mcp.outcomes import CallOutcome, CallState
from pipelines.agents.servers import ServerReference
from tests.journeys.clients.environments import HERE, javascript_packages, node

#: The server's program in its folder.
PROGRAM = Path("node_modules/@modelcontextprotocol/server-everything/dist/index.js")

pytestmark = pytest.mark.timeout(900)  # the first test waits for the installation

Call = Callable[..., CallOutcome]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerReference]:
    """The running server."""
    folder, [port] = javascript_packages(HERE / "server-everything"), free_ports(1)
    log = tmp_path_factory.mktemp("everything") / "log"
    with log.open("wb") as output:
        command, environment = [str(node()), str(PROGRAM), "streamableHttp"], os.environ | {"PORT": str(port)}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: _listens(port), what="the server")
        yield ServerReference("everything", "request", f"http://127.0.0.1:{port}/mcp")
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the wheel's node is a program that starts another one
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def open_settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, secret_key="a secret of the tests", egress_allow=("127.0.0.1",))


@pytest.fixture
def call(open_settings: Settings, server: ServerReference) -> Call:
    """`call(name, **arguments)` → the outcome; `state` is what is known while it runs."""

    def call(name: str, state: CallState | None = None, **arguments: Any) -> CallOutcome:
        return client.call_tool(
            open_settings, server, name, arguments, state or CallState(), version=None, timeout=30,
            should_stop=lambda: False,
        )  # fmt: skip

    return call


def test_its_tools_are_listed(open_settings, server):
    listed = client.list_tools(open_settings, server, timeout=30, should_stop=lambda: False)

    tools = {tool["name"]: tool for tool in listed.tools}
    assert listed.version == "2025-11-25"
    assert {"echo", "get-sum", "get-tiny-image"} <= set(tools)
    assert "simulate-research-query" not in tools  # it has to be called as a task of that revision
    assert tools["echo"]["annotations"]["readOnlyHint"] is True


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("echo", {"message": "hello"}, "Echo: hello"),
        ("get-sum", {"a": 2, "b": 3}, "The sum of 2 and 3 is 5."),
        ("get-tiny-image", {}, "[image: image/png, "),
        ("get-structured-content", {"location": "New York"}, '"temperature"'),
        ("get-resource-links", {"count": 2}, "[resource: Text Resource 2, demo://"),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}, "This is a plaintext resource"),
        ("trigger-elicitation-request", {}, "It asks: Please provide inputs"),
    ],
)
def test_a_call_returns_its_content_as_text(call: Call, name, arguments, text):
    outcome = call(name, **arguments)

    assert text in outcome.text
    assert outcome.error is None


def test_progress_is_noted(call: Call):
    state = CallState()

    outcome = call("trigger-long-running-operation", state, duration=0.2, steps=2)

    assert "completed" in outcome.text
    assert state.progress is not None
    assert state.progress[:2] == (2, 2)


def test_an_unknown_tool_is_an_error(call: Call):
    assert call("missing").error == "mcp_tool_execution_error"
