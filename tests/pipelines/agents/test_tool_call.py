"""A tool is called once, unless it may be repeated; what nobody knows is in doubt; a server's errors are results."""

import re
import threading
import time

import pytest

from models.accounts import files
from models.accounts.files import FileAccess
from models.jobs import effects
from models.platform.errors import Cancelled, Released
from pipelines.agents import tool_call
from pipelines.agents.attempt_watch import AttemptWatch
from pipelines.agents.mcp.outcomes import CallState
from pipelines.chat.mcp_items import execution_error
from pipelines.files.content import read_content
from tests.pipelines.agents.conftest import RELIES_ON_HINTS, call_job, mcp_tool
from tests.pipelines.agents.http_server import respond
from tests.pipelines.agents.mcp.raw_server import RawServer, listing, raw_server, text_result, tool
from tests.pipelines.agents.mcp.sdk_server import Calls, sdk_server
from tests.pipelines.agents.mcp.test_misbehaving_servers import TASK, disconnect


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def url(calls):
    with sdk_server(calls) as url:
        yield url


def stored_effect(database, job, step=effects.TOOL_CALL):
    with database.connection() as connection:
        return effects.read(connection, job.id, step)


def test_a_call_returns_what_the_tool_answers(tool_jobs, start, url, calls):
    # Given
    response = start(mcp_tool(url))
    assert tool_jobs.list_tools(response)["error"] is None

    # When
    result = tool_jobs.run(call_job(response, "add", '{"a": 2, "b": 3}'))

    # Then
    assert result == {"output": "5", "error": None, "in_doubt": False}
    assert calls.count == {"add": 1}


def test_a_call_without_a_cached_list_finds_out_the_revision(tool_jobs, start, url):
    assert tool_jobs.run(call_job(start(mcp_tool(url)), "buy", '{"what": "tea"}'))["output"] == "bought tea"


def test_an_answered_call_is_not_repeated_after_a_crash(tool_jobs, start, url, calls, database):
    # Given
    job = call_job(start(mcp_tool(url)), "buy", '{"what": "tea"}')
    tool_jobs.run(job, crash=True)

    # When
    result = tool_jobs.run(job)

    # Then
    assert result == {"output": "bought tea", "error": None, "in_doubt": False}
    assert calls.count == {"buy": 1}


def test_the_effect_keeps_no_copy_of_the_output(tool_jobs, start, url, database):
    # Given
    job = call_job(start(mcp_tool(url)), "buy", '{"what": "tea"}')

    # When
    tool_jobs.run(job)

    # Then
    assert stored_effect(database, job).state == "done"
    assert stored_effect(database, job).result == {}


def stop_in_the_middle(tool_jobs, job, calls, reason="cancelled"):
    """Stop an attempt while its call runs. Returns the seconds from the stop to the end, and what it raised."""
    attempt = tool_jobs.begin(job)
    stopped: list[float] = []

    def stop():
        assert calls.started.wait(10)
        stopped.append(time.monotonic())
        attempt.stop(reason)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises((Cancelled, Released)) as caught:
        tool_call.run(tool_jobs.settings, tool_jobs.objects, attempt)
    return time.monotonic() - stopped[0], caught.value


def test_a_call_that_was_interrupted_is_in_doubt(tool_jobs, start, url, calls):
    # Given
    job = call_job(start(mcp_tool(url)), "wait")
    stop_in_the_middle(tool_jobs, job, calls)
    calls.hold.set()

    # When
    result = tool_jobs.run(job)

    # Then
    assert result["in_doubt"] is True
    assert "may have been called" in result["error"]["content"][0]["text"]
    assert calls.count == {"wait": 1}


@pytest.mark.parametrize("state", ["cancelled", "dead"])
def test_a_job_that_does_not_complete_leaves_no_effect_for_operators(tool_jobs, start, url, calls, database, state):
    # Given
    job = call_job(start(mcp_tool(url)), "wait")
    stop_in_the_middle(tool_jobs, job, calls)
    attempt = tool_jobs.begin(job)

    # When
    tool_jobs.settle(attempt, tool_call.end(attempt, state, None))

    # Then
    assert stored_effect(database, job).error["code"] == "in_doubt"
    with database.connection() as connection:
        assert job.id not in [each.job_id for each in effects.list_unknown(connection, 1000)]


def test_a_call_whose_job_was_cancelled_before_its_next_attempt_is_none_for_operators(
    tool_jobs, start, url, calls, database
):
    # Given
    job = call_job(start(mcp_tool(url)), "wait")
    stop_in_the_middle(tool_jobs, job, calls)

    # When
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE id = %s", (job.id,))

    # Then
    with database.connection() as connection:
        assert job.id not in [each.job_id for each in effects.list_unknown(connection, 1000)]


def test_a_call_in_doubt_is_repeated_once_if_a_person_approves(tool_jobs, start, url, calls):
    # Given
    calls.hold.set()
    response = start(mcp_tool(url))
    approved = call_job(response, "wait", approved=True)

    # When
    result = tool_jobs.run(approved, crash=True)

    # Then
    assert result["output"] == "waited"
    assert tool_jobs.run(approved)["output"] == "waited"
    assert calls.count == {"wait": 1}


def test_a_cancelled_call_ends_within_100_ms_and_is_aborted(tool_jobs, start, url, calls):
    # Given
    job = call_job(start(mcp_tool(url)), "wait")

    # When
    seconds, error = stop_in_the_middle(tool_jobs, job, calls)

    # Then
    assert isinstance(error, Cancelled)
    assert seconds < 0.1
    assert calls.cancelled.wait(5)


def test_a_worker_that_stops_lets_a_call_end_that_must_not_be_repeated(tool_jobs, start, url, calls):
    # Given
    attempt = tool_jobs.begin(call_job(start(mcp_tool(url)), "wait"))

    def stop():
        assert calls.started.wait(10)
        attempt.stop("released")
        calls.hold.set()

    threading.Thread(target=stop, daemon=True).start()

    # When
    ending = tool_call.run(tool_jobs.settings, tool_jobs.objects, attempt)

    # Then
    assert ending.result["output"] == "waited"


@pytest.mark.parametrize(("trust", "count"), [(RELIES_ON_HINTS, 2), ({}, 1)])
def test_a_tool_is_repeated_only_if_its_server_is_relied_on_to_say_that_it_only_reads(tool_jobs, start, trust, count):
    # Given a server that loses the first answer
    server = RawServer(
        tools__list=listing(tool(annotations={"readOnlyHint": True})), tools__call=[disconnect, text_result()]
    )
    with raw_server(server) as url:
        response = start(mcp_tool(url, **trust))
        tool_jobs.list_tools(response)

        # When
        result = tool_jobs.run(call_job(response, "t"))

    # Then
    assert server.methods.count("tools/call") == count
    assert result["in_doubt"] is (count == 1)


def test_a_tool_that_only_reads_is_called_again_by_the_next_attempt(tool_jobs, start, calls):
    # Given
    server = RawServer(tools__list=listing(tool(annotations={"readOnlyHint": True})), tools__call=text_result())
    with raw_server(server) as url:
        response = start(mcp_tool(url, **RELIES_ON_HINTS))
        tool_jobs.list_tools(response)
        job = call_job(response, "t")

        # When
        tool_jobs.run(job, crash=True)
        tool_jobs.run(job)

    # Then
    assert server.methods.count("tools/call") == 2
    assert stored_effect(tool_jobs.database, job) is None


def test_a_server_that_cannot_be_reached_is_an_error_after_some_tries(tool_jobs, start, monkeypatch):
    # Given
    monkeypatch.setattr(tool_call, "RETRY_DELAY", 0)

    # When
    result = tool_jobs.run(call_job(start(mcp_tool("http://127.0.0.1:9/mcp")), "t"))

    # Then
    assert result["in_doubt"] is False
    assert result["error"]["type"] == "http_error"
    assert "cannot be reached" in result["error"]["message"]


def test_a_refused_address_is_an_error(tool_jobs, start):
    result = tool_jobs.run(call_job(start(mcp_tool("http://169.254.169.254/mcp")), "t"))

    assert (result["error"]["type"], result["error"]["code"]) == ("http_error", 0)


def test_a_status_of_the_server_is_an_error_with_its_code(tool_jobs, start):
    server = RawServer(tools__list=listing(tool()), tools__call=lambda request, _: respond(request, b"", 401))
    with raw_server(server) as url:
        response = start(mcp_tool(url))
        tool_jobs.list_tools(response)

        result = tool_jobs.run(call_job(response, "t"))

    assert result["error"] == {
        "type": "http_error", "message": "The server answered with the HTTP status 401.", "code": 401,
    }  # fmt: skip


@pytest.mark.parametrize("arguments", ["{", "[]", '"text"', "1"])
def test_arguments_that_are_no_object_are_an_error(tool_jobs, start, arguments):
    result = tool_jobs.run(call_job(start(mcp_tool("http://127.0.0.1:9/mcp")), "t", arguments))

    assert result["error"] == execution_error("The arguments are not a JSON object.")


def test_a_server_that_was_removed_is_an_error(tool_jobs, start):
    result = tool_jobs.run(call_job(start(), "t"))

    assert result["error"] == execution_error("The server was removed since the turn began.")


def test_an_output_is_cut_at_the_limit_and_kept_in_a_file(tool_jobs, start, database):
    # Given a tool with a long output
    tool_jobs.settings = tool_jobs.settings.model_copy(update={"tool_output_bytes": 1_024})
    server = RawServer(tools__call=text_result("é" * 1_000))

    # When it is called
    with raw_server(server) as url:
        response = start(mcp_tool(url))
        output = tool_jobs.run(call_job(response, "t"))["output"]

    # Then the model gets its beginning, and the name of a file
    cut, note = output.rsplit("\n", 1)
    assert cut == "é" * 512 + "\n[976 more bytes were cut off]"
    file_id = re.search(r"The file (file_\w+) has the whole text", note)[1]

    # And the file of the turn's user has all of it
    with database.connection() as connection:
        file = files.read(connection, file_id, FileAccess(response.account_id, response.user_id, admin=False))
        assert files.read(connection, file_id, FileAccess(response.account_id, "another", admin=False)) is None
    assert (file.purpose, b"".join(read_content(tool_jobs.objects, file)).decode()) == ("tool_output", "é" * 1_000)


def test_a_long_output_for_which_there_is_no_room_is_cut_only(tool_jobs, start, database):
    tool_jobs.settings = tool_jobs.settings.model_copy(update={"tool_output_bytes": 1_024})
    server = RawServer(tools__call=text_result("x" * 2_000))

    with raw_server(server) as url:
        response = start(mcp_tool(url))
        with database.connection() as connection:
            change = "UPDATE accounts SET limits = '{\"stored_bytes\": 100}' WHERE id = %s"
            connection.execute(change, (response.account_id,))
        output = tool_jobs.run(call_job(response, "t"))["output"]

    assert output == "x" * 1_024 + "\n[976 more bytes were cut off]"


def test_a_task_outlives_the_attempt_that_began_it(tool_jobs, start, monkeypatch):
    # Given an attempt that leaves its thread to others at once
    working = {**TASK, "status": "working", "pollIntervalMs": 1}
    server = RawServer(tools__call={**working, "resultType": "task"}, tasks__get={**working, "resultType": "complete"})
    with raw_server(server) as url:
        job = call_job(start(mcp_tool(url)), "t")
        monkeypatch.setattr(tool_call, "TASK_SLICE", 0.2)
        with pytest.raises(Released):
            tool_jobs.run(job)
        server.answers["tasks/get"] = {
            **TASK, "status": "completed", "resultType": "complete", "result": text_result("the end"),
        }  # fmt: skip

        # When
        result = tool_jobs.run(job)

    # Then
    assert result["output"] == "the end"
    assert server.methods.count("tools/call") == 1


@pytest.mark.parametrize(
    ("progress", "stored"),
    [((1.5, 3, "half"), (1, 3)), ((float("inf"), 1e300, ""), (0, 2**53)), ((-5, None, ""), (0, None))],
)
def test_any_number_of_a_server_is_a_progress(tool_jobs, start, progress, stored):
    # Given
    attempt = tool_jobs.begin(call_job(start(), "t"))
    watch = AttemptWatch(attempt, CallState(progress=progress), patient=False, task_slice=60)

    # When
    stops = watch()

    # Then
    assert stops is False
    with tool_jobs.database.connection() as connection:
        row = connection.execute("SELECT progress FROM jobs WHERE id = %s", (attempt.job.id,)).fetchone()
    assert (row["progress"]["done"], row["progress"]["total"]) == stored
