"""A server that misbehaves costs its own calls, in bounds of bytes and time, and nothing else."""

import socket
import time
from http.server import BaseHTTPRequestHandler

import pytest

from models.platform.settings import Settings
from pipelines.agents.mcp import client
from pipelines.agents.mcp.listing import MAX_DEFINITION, MAX_LIST, MAX_PAGES, MAX_TOOLS
from pipelines.agents.mcp.outcomes import CallState, ServerFault
from pipelines.agents.servers import ServerReference
from tests.pipelines.agents.http_server import respond
from tests.pipelines.agents.mcp.raw_server import RawServer, listing, raw_server, respond_json, text_result, tool

MODERN = "2026-07-28"


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(data_dir=tmp_path, secret_key="a secret of the tests", egress_allow=("127.0.0.1",))


def list_tools(settings, url, timeout=20.0):
    server = ServerReference("tests", "request", url)
    return client.list_tools(settings, server, timeout=timeout, should_stop=lambda: False)


def call(settings, url, *, version=MODERN, timeout=20.0, state=None):
    server = ServerReference("tests", "request", url)
    return client.call_tool(
        settings, server, "t", {}, state or CallState(), version=version, timeout=timeout, should_stop=lambda: False
    )


def fault_of_call(settings, answer, **options):
    """Return the fault of a call that the server answers so."""
    with raw_server(RawServer(tools__call=answer)) as url, pytest.raises(ServerFault) as caught:
        call(settings, url, **options)
    return caught.value


def hang(request: BaseHTTPRequestHandler, message: object) -> None:
    """Read on until the client disconnects."""
    request.rfile.read(1)


def disconnect(request: BaseHTTPRequestHandler, message: object) -> None:
    """Close the connection without an answer."""
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True


def begin_stream(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Type", "text/event-stream")
    request.send_header("Connection", "close")
    request.end_headers()


def test_a_server_that_hangs_is_a_timeout_in_doubt(settings):
    fault = fault_of_call(settings, hang, timeout=0.5)

    assert (fault.type, fault.uncertain) == ("timeout", True)


def test_a_connection_that_breaks_after_the_call_was_sent_is_in_doubt(settings):
    fault = fault_of_call(settings, disconnect)

    assert (fault.type, fault.uncertain, fault.unsent) == ("http_error", True, False)


@pytest.mark.parametrize(("status", "uncertain"), [(401, False), (403, False), (404, False), (429, False), (502, True)])
def test_a_status_is_named_and_in_doubt_only_if_the_server_failed(settings, status, uncertain):
    fault = fault_of_call(settings, lambda request, _: respond(request, b"no", status))

    assert fault.uncertain is uncertain
    if status != 404:
        assert (fault.type, fault.code) == ("http_error", status)


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}', b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_no_message_is_an_error_of_the_protocol(settings, body):
    fault = fault_of_call(settings, lambda request, _: respond(request, body, 200, "application/json"))

    assert fault.type == "mcp_protocol_error"
    assert len(fault.message) <= 2_100


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "complete"},
        {"content": "text", "resultType": "complete"},
        {"content": [{"type": "text"}], "resultType": "complete"},
        {"resultType": "task"},
        {"resultType": "unknown"},
    ],
)
def test_a_result_that_is_none_of_a_call_is_an_error_of_the_protocol(settings, result):
    assert fault_of_call(settings, result).type == "mcp_protocol_error"


def test_an_answer_of_100_mib_is_not_read(settings):
    # Given
    sent = []

    def flood(request: BaseHTTPRequestHandler, message: object) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(100 << 20))
        request.end_headers()
        for _ in range(100):
            request.wfile.write(b" " * (1 << 20))
            sent.append(1)

    # When
    fault = fault_of_call(settings, flood)

    # Then
    assert "more than 8,388,608 bytes" in fault.message
    assert len(sent) < 50


def test_a_stream_of_events_that_never_ends_stops_at_the_limit(settings):
    # Given
    def flood(request: BaseHTTPRequestHandler, message: object) -> None:
        begin_stream(request)
        while True:
            request.wfile.write(b'data: {"jsonrpc": "2.0", "method": "notifications/x"}\n\n' * 1000)

    # When
    fault = fault_of_call(settings, flood)

    # Then
    assert "more than 8,388,608 bytes" in fault.message


def test_a_stream_that_sends_comments_only_is_a_timeout(settings):
    # Given
    def drip(request: BaseHTTPRequestHandler, message: object) -> None:
        begin_stream(request)
        while True:
            request.wfile.write(b": still here\n\n")
            time.sleep(0.05)

    # When
    begun = time.monotonic()
    fault = fault_of_call(settings, drip, timeout=1)

    # Then
    assert (fault.type, fault.uncertain) == ("timeout", True)
    assert time.monotonic() - begun < 5


def test_a_redirect_to_the_metadata_of_the_machine_is_not_followed(settings):
    fault = fault_of_call(
        settings,
        lambda request, _: respond(request, b"", 307, Location="http://169.254.169.254/latest/meta-data?token=x"),
    )

    assert fault.type == "mcp_protocol_error"
    assert "not followed" in fault.message
    assert "token=x" not in fault.message


def test_a_redirect_of_the_same_origin_is_followed_three_times(settings):
    # Given
    server = RawServer()
    server.answers["tools/call"] = [
        lambda request, _: respond(request, b"", 307, Location="/mcp"),
        text_result(),
    ]

    # When
    with raw_server(server) as url:
        outcome = call(settings, url)

    # Then
    assert outcome.text == "done"
    assert server.methods == ["tools/call", "tools/call"]


def test_endless_redirects_are_an_error(settings):
    server = RawServer(tools__call=lambda request, _: respond(request, b"", 307, Location="/mcp"))

    with raw_server(server) as url, pytest.raises(ServerFault):
        call(settings, url)

    assert len(server.methods) <= 4


def test_texts_are_stored_without_what_postgres_does_not_store(settings):
    with raw_server(RawServer(tools__call=text_result("a\0b"))) as url:
        assert call(settings, url).text == "ab"


@pytest.mark.parametrize(
    ("tools", "kept"),
    [
        ([tool(f"t{number}") for number in range(MAX_TOOLS + 5)], MAX_TOOLS),
        ([tool("big", description="x" * MAX_DEFINITION), tool()], 1),
        ([tool(f"t{number}", description="x" * 60_000) for number in range(30)], MAX_LIST // 60_100),
        ([tool("a b"), tool("a\nb"), tool(""), tool("x" * 129), tool("ünï"), tool("good.name/1-2_3")], 1),
        ([tool("twice"), tool("twice", description="another")], 1),
    ],
)
def test_a_list_is_cut_to_its_limits(settings, tools, kept):
    # When
    with raw_server(RawServer(tools__list=listing(*tools))) as url:
        listed = list_tools(settings, url)

    # Then
    assert len(listed.tools) == kept
    assert listed.left_out == len(tools) - kept


def test_a_list_without_end_is_an_error(settings):
    server = RawServer(tools__list=listing(tool(), nextCursor="more"))

    with raw_server(server) as url, pytest.raises(ServerFault, match="pages"):
        list_tools(settings, url)

    assert server.methods.count("tools/list") == MAX_PAGES


def test_pages_are_joined(settings):
    server = RawServer(tools__list=[listing(tool("a"), nextCursor="2"), listing(tool("b"))])

    with raw_server(server) as url:
        assert [each["name"] for each in list_tools(settings, url).tools] == ["a", "b"]


@pytest.mark.parametrize(("milliseconds", "seconds"), [(120_000, 120), (0, 30), (10**12, 86_400), (-5, 30)])
def test_a_list_is_cached_as_the_server_says_within_bounds(settings, milliseconds, seconds):
    with raw_server(RawServer(tools__list=listing(tool(), ttlMs=milliseconds))) as url:
        assert list_tools(settings, url).ttl == seconds


def test_a_schema_that_cannot_be_stored_becomes_that_of_any_object(settings):
    schema = {"type": "object", "title": "a\0b"}

    with raw_server(RawServer(tools__list=listing(tool(inputSchema=schema)))) as url:
        assert list_tools(settings, url).tools[0]["input_schema"]["properties"] == {}


@pytest.mark.parametrize(
    "tools", [[tool(inputSchema="no object")], [tool(inputSchema={"type": "string"})], [{"name": 1}], "none"]
)
def test_a_list_that_does_not_follow_the_protocol_is_an_error(settings, tools):
    answer = {**listing(), "tools": tools}

    with raw_server(RawServer(tools__list=answer)) as url, pytest.raises(ServerFault) as caught:
        list_tools(settings, url)

    assert caught.value.type == "mcp_protocol_error"


def test_a_server_of_the_revision_before_is_found_out(settings):
    # Given a server that knows no other revision than 2025-06-18
    initialized = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                   "serverInfo": {"name": "old", "version": "1"}}  # fmt: skip
    server = RawServer(
        initialize=initialized,
        notifications__initialized=lambda request, _: respond(request, b"", 202),
        tools__list={"tools": [tool()]},
    )
    del server.answers["server/discover"]

    # When
    with raw_server(server) as url:
        listed = list_tools(settings, url)

    # Then
    assert (listed.version, listed.ttl) == ("2025-06-18", 300)
    assert server.methods == ["server/discover", "initialize", "notifications/initialized", "tools/list"]
    assert server.headers[-1]["mcp-protocol-version"] == "2025-06-18"


def test_a_server_without_tools_lists_none(settings):
    with raw_server(RawServer()) as url:
        assert list_tools(settings, url).tools == []


def test_credentials_go_to_the_server_in_headers(settings):
    # Given
    from pipelines.agents import credentials

    server = RawServer(tools__call=text_result())
    sealed = credentials.seal(settings, {"X-Team": "blue"}, "hunter2")

    # When
    with raw_server(server) as url:
        reference = ServerReference("tests", "request", url, sealed)
        client.call_tool(
            settings, reference, "t", {}, CallState(), version=MODERN, timeout=20, should_stop=lambda: False
        )

    # Then
    assert server.headers[0]["x-team"] == "blue"
    assert server.headers[0]["authorization"] == "Bearer hunter2"
    assert "hunter2" not in repr(reference)


TASK = {"taskId": "task-1", "createdAt": "2026-11-28T00:00:00Z", "lastUpdatedAt": "2026-11-28T00:00:00Z", "ttlMs": None}


def test_a_task_is_followed_to_its_result(settings):
    # Given
    working = {**TASK, "status": "working", "statusMessage": "half", "pollIntervalMs": 1}
    server = RawServer(
        tools__call={**working, "resultType": "task"},
        tasks__get=[
            {**working, "resultType": "complete"},
            {**TASK, "status": "completed", "resultType": "complete", "result": text_result("the end")},
        ],
    )
    state = CallState()

    # When
    with raw_server(server) as url:
        outcome = call(settings, url, state=state)

    # Then
    assert outcome.text == "the end"
    assert state.task_id == "task-1"
    assert state.progress == (0, None, "half")
    assert server.methods == ["tools/call", "tasks/get", "tasks/get"]
    assert server.headers[1]["mcp-name"] == "task-1"
    capabilities = server.messages[0]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert "io.modelcontextprotocol/tasks" in capabilities["extensions"]


@pytest.mark.parametrize(
    ("task", "error", "text"),
    [
        ({"status": "failed", "error": {"code": 1, "message": "broken"}}, "mcp_tool_execution_error", "broken"),
        ({"status": "cancelled"}, "mcp_tool_execution_error", "cancelled"),
        (
            {
                "status": "input_required",
                "inputRequests": {
                    "a": {
                        "method": "elicitation/create",
                        "params": {"message": "Which one?", "requestedSchema": {"type": "object", "properties": {}}},
                    }
                },
            },
            "input_required",
            "Which one?",
        ),
    ],
)
def test_a_task_that_does_not_complete_is_an_error(settings, task, error, text):
    # Given
    server = RawServer(
        tools__call={**TASK, "status": "working", "resultType": "task"},
        tasks__get={**TASK, "resultType": "complete", **task},
    )

    # When
    with raw_server(server) as url:
        outcome = call(settings, url)

    # Then
    assert outcome.error == error
    assert text in outcome.text


def test_a_task_of_an_earlier_attempt_is_followed_without_another_call(settings):
    server = RawServer(tasks__get={**TASK, "status": "completed", "resultType": "complete", "result": text_result()})

    with raw_server(server) as url:
        assert call(settings, url, state=CallState(task_id="task-1")).text == "done"

    assert server.methods == ["tasks/get"]


def test_a_call_that_stops_cancels_its_task(settings):
    # Given
    working = {**TASK, "status": "working", "pollIntervalMs": 200}
    cancelled = []
    server = RawServer(tools__call={**working, "resultType": "task"}, tasks__get={**working, "resultType": "complete"})
    server.answers["tasks/cancel"] = lambda request, message: (
        cancelled.append(message["params"]["taskId"]),
        respond_json(request, {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete"}}),
    )

    # When
    with raw_server(server) as url:
        with pytest.raises(client.event_loop.Stopped):
            client.call_tool(
                settings, ServerReference("tests", "request", url), "t", {}, CallState(), version=MODERN, timeout=20,
                should_stop=lambda: "tasks/get" in server.methods,
            )  # fmt: skip
        end = time.monotonic() + 5
        while not cancelled and time.monotonic() < end:
            time.sleep(0.01)

    # Then
    assert cancelled == ["task-1"]
