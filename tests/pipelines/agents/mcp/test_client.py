"""Tools of servers of the official SDK are listed and called, in both revisions of the protocol."""

import threading
import time
from collections.abc import Iterator

import pytest

from models.platform.settings import Settings
from pipelines.agents.event_loop import Stopped
from pipelines.agents.mcp import client
from pipelines.agents.mcp.outcomes import CallOutcome, CallState, ServerFault
from pipelines.agents.servers import ServerReference
from tests.pipelines.agents.mcp.sdk_server import Calls, sdk_server

MODERN, LEGACY = "2026-07-28", "2025-11-25"


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def server(calls: Calls) -> Iterator[ServerReference]:
    with sdk_server(calls) as url:
        yield ServerReference("tests", "request", url)


@pytest.fixture
def open_settings(tmp_path) -> Settings:
    return Settings(data_dir=tmp_path, secret_key="a secret of the tests", egress_allow=("127.0.0.1",))


def call(settings, server, name, arguments=None, *, version=None, state=None, timeout=20.0, stop=lambda: False):
    return client.call_tool(
        settings, server, name, arguments or {}, state or CallState(), version=version, timeout=timeout,
        should_stop=stop,
    )  # fmt: skip


def test_tools_are_listed_with_their_schemas_and_annotations(open_settings, server):
    # When
    listed = client.list_tools(open_settings, server, timeout=20, should_stop=lambda: False)

    # Then
    tools = {tool["name"]: tool for tool in listed.tools}
    assert listed.version == MODERN
    assert {"add", "buy", "wait"} <= set(tools)
    assert tools["add"]["annotations"] == {"readOnlyHint": True}
    assert set(tools["add"]["input_schema"]["properties"]) == {"a", "b"}
    assert tools["buy"]["description"] == "Buy something."
    assert len({tool["digest"] for tool in listed.tools}) == len(tools)


@pytest.mark.parametrize("version", [None, MODERN, LEGACY])
def test_a_call_returns_the_text_of_its_result(open_settings, server, version, calls):
    # When
    outcome = call(open_settings, server, "add", {"a": 2, "b": 3}, version=version)

    # Then
    assert outcome == CallOutcome("5")
    assert calls.count == {"add": 1}


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_an_error_of_a_tool_is_its_outcome(open_settings, server, version):
    outcome = call(open_settings, server, "fail", version=version)

    assert outcome.error == "mcp_tool_execution_error"
    assert "the reason of the failure" in outcome.text


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_an_unknown_tool_is_an_error(open_settings, server, version):
    outcome = call(open_settings, server, "missing", version=version)

    assert outcome == CallOutcome("Unknown tool: missing", "mcp_tool_execution_error")


def test_an_image_is_described(open_settings, server):
    assert call(open_settings, server, "draw").text == "[image: image/png, 12 bytes, which cannot be shown]"


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_what_a_tool_asks_of_the_user_is_told(open_settings, server, version):
    outcome = call(open_settings, server, "greet", version=version)

    assert "What is your name?" in outcome.text
    assert outcome.error == ("input_required" if version == MODERN else "mcp_tool_execution_error")


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_progress_is_noted_while_the_call_runs(open_settings, server, calls, version):
    # Given
    state = CallState()

    def stop() -> bool:
        if state.progress is not None:
            calls.hold.set()
        return False

    # When
    outcome = call(open_settings, server, "progress", version=version, state=state, stop=stop)

    # Then
    assert outcome == CallOutcome("done")
    assert state.progress == (1, 3, "one of three")


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_a_call_is_given_up_at_once_and_aborted(open_settings, server, calls, version):
    # Given
    stop = threading.Event()
    threading.Thread(target=lambda: (calls.started.wait(10), stop.set()), daemon=True).start()
    begun: list[float] = []

    def should_stop() -> bool:
        if stop.is_set() and not begun:
            begun.append(time.monotonic())
        return stop.is_set()

    # When
    with pytest.raises(Stopped):
        call(open_settings, server, "wait", version=version, stop=should_stop)

    # Then
    assert time.monotonic() - begun[0] < 0.05
    assert calls.cancelled.wait(5)


@pytest.mark.parametrize("version", [MODERN, LEGACY])
def test_a_server_that_does_not_answer_is_a_timeout(open_settings, server, version):
    with pytest.raises(ServerFault) as caught:
        call(open_settings, server, "wait", version=version, timeout=1)

    assert (caught.value.type, caught.value.uncertain) == ("timeout", True)


def test_a_server_that_is_not_allowed_is_refused(tmp_path, server, calls):
    closed = Settings(data_dir=tmp_path, secret_key="a secret of the tests")

    with pytest.raises(ServerFault, match="not reachable from here") as caught:
        call(closed, server, "add", {"a": 1, "b": 1})

    assert (caught.value.type, caught.value.unsent) == ("refused", True)
    assert calls.count == {}


def test_a_server_that_is_not_there_is_unsent(open_settings):
    gone = ServerReference("gone", "request", "http://127.0.0.1:9/mcp")

    with pytest.raises(ServerFault, match="cannot be reached") as caught:
        call(open_settings, gone, "add", version=MODERN)

    assert (caught.value.type, caught.value.unsent, caught.value.uncertain) == ("http_error", True, False)
