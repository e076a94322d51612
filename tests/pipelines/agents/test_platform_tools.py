"""The platform's own tools read and write what belongs to the turn's user, through the jobs of other pools."""

import io

import orjson
import pytest
from psycopg.types.json import Jsonb

from models.accounts import files
from models.accounts.files import FileAccess
from models.jobs import jobs
from models.jobs.attempt_context import WaitForChildren
from models.platform.ids import new_id
from pipelines.agents import tool_call
from pipelines.agents.platform_tools import NO_MEMORY
from pipelines.chat.mcp_items import execution_error
from tests.pipelines.agents.conftest import call_job

PLATFORM = {"type": "mcp", "server_label": "sangha"}

HIT = {"text": "I like tea", "speaker": "user", "occurred_at": "2026-05-01T10:00:00+00:00", "passage": None}


def platform_job(response, name, arguments):
    return call_job(response, name, arguments, "sangha")


def begin_child(tool_jobs, job):
    """Run the attempt that begins a child. Returns the child."""
    outcome = tool_call.run(tool_jobs.settings, tool_jobs.objects, tool_jobs.begin(job))
    assert isinstance(outcome, WaitForChildren)
    [child] = outcome.children
    return child


def end_child(database, job, child, state, result):
    """Insert the child of a job as one that has ended."""
    with database.transaction() as connection:
        jobs.enqueue(connection, child)
        connection.execute(
            "UPDATE jobs SET parent_id = %s, state = %s, result = %s, finished_at = now() WHERE id = %s",
            (job.id, state, Jsonb(result), child.id),
        )


def test_memories_are_searched_by_a_child_job_in_the_users_space(tool_jobs, start, database, caller):
    # Given
    response = start(PLATFORM)
    job = platform_job(response, "memory_search", '{"query": "drinks", "limit": 3}')

    # When
    child = begin_child(tool_jobs, job)

    # Then
    assert (child.kind, child.owner_id) == ("memory.search", caller.user_id)
    assert child.arguments["user_id"] == caller.user_id
    assert (child.arguments["text"], child.arguments["limit"]) == ("drinks", 3)
    assert child.unique_key == f"tool_memory:{job.id}"
    end_child(database, job, child, "completed", {"hits": [HIT]})
    assert tool_jobs.run(job)["output"] == "- [2026-05-01] user: I like tea"


def test_a_search_of_an_end_users_turn_stays_in_their_space(tool_jobs, start, database):
    # Given
    response = start(PLATFORM)
    with database.connection() as connection:
        connection.execute("UPDATE responses SET space = 'alice' WHERE id = %s", (response.id,))

    # When / Then
    child = begin_child(tool_jobs, platform_job(response, "memory_search", '{"query": "x"}'))
    assert child.arguments["space"] == "alice"


def test_a_memory_is_written_by_a_child_job_once(tool_jobs, start, database):
    # Given
    job = platform_job(start(PLATFORM), "memory_write", '{"text": "Likes tea."}')
    child = begin_child(tool_jobs, job)

    # When the attempt is repeated
    again = begin_child(tool_jobs, job)

    # Then
    assert (child.kind, child.arguments["memories"]) == ("memory.create", [{"text": "Likes tea.", "speaker": ""}])
    assert again.unique_key == child.unique_key
    end_child(database, job, child, "completed", {"ids": child.arguments["ids"]})
    assert tool_jobs.run(job)["output"] == "Remembered."


@pytest.mark.parametrize(
    ("name", "arguments"), [("memory_search", '{"query": "x"}'), ("memory_write", '{"text": "x"}')]
)
def test_a_turn_without_memory_has_none_for_tools(tool_jobs, start, name, arguments):
    response = start(PLATFORM, memory={"recall": False, "remember": False})

    assert tool_jobs.run(platform_job(response, name, arguments))["error"] == execution_error(NO_MEMORY)


def test_a_search_that_failed_is_an_error(tool_jobs, start, database):
    job = platform_job(start(PLATFORM), "memory_search", '{"query": "x"}')
    end_child(database, job, begin_child(tool_jobs, job), "failed", None)

    assert tool_jobs.run(job)["error"]["type"] == "mcp_tool_execution_error"


def store_file(tool_jobs, database, account_id, content, purpose="user_data"):
    file_id = new_id("file")
    key = f"{account_id}/{file_id}"
    tool_jobs.objects.put(key, io.BytesIO(content))
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO files (id, account_id, filename, purpose, content_type, bytes, object_key)"
            " VALUES (%s, %s, 'notes.txt', %s, 'text/plain', %s, %s)",
            (file_id, account_id, purpose, len(content), key),
        )
    return file_id


def read(tool_jobs, response, file_id, **more):
    arguments = orjson.dumps({"file_id": file_id, **more}).decode()
    return tool_jobs.run(platform_job(response, "read_file", arguments))


def test_files_of_the_account_are_listed_and_read(tool_jobs, start, database, caller):
    # Given
    response = start(PLATFORM)
    file_id = store_file(tool_jobs, database, caller.account_id, "hällo wörld".encode())

    # When / Then
    listed = tool_jobs.run(platform_job(response, "list_files", "{}"))
    assert listed["output"] == f"- {file_id}: notes.txt, 13 bytes, text/plain"
    assert read(tool_jobs, response, file_id)["output"] == "hällo wörld"
    part = read(tool_jobs, response, file_id, offset=2, length=3)["output"]
    assert part == "llo\n[6 more characters: read on with the offset 5]"


def test_another_accounts_file_and_an_export_are_not_read(tool_jobs, start, database, caller, account):
    # Given
    response = start(PLATFORM)
    foreign = store_file(tool_jobs, database, account, b"secret")
    export = store_file(tool_jobs, database, caller.account_id, b"secret", "export")

    # When / Then
    for file_id in (foreign, export, "file_missing"):
        assert read(tool_jobs, response, file_id)["error"] == execution_error(f"There is no file {file_id}.")
    with database.connection() as connection:
        assert files.page(connection, FileAccess(caller.account_id, None, admin=False)) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("memory_search", "{}"),
        ("memory_search", '{"query": 1}'),
        ("memory_search", '{"query": " "}'),
        ("memory_search", '{"query": "x", "limit": 0}'),
        ("memory_search", '{"query": "x", "limit": true}'),
        ("memory_write", '{"text": ""}'),
        ("read_file", '{"file_id": ["x"]}'),
        ("list_files", '{"limit": "5"}'),
    ],
)
def test_arguments_that_do_not_fit_are_an_error(tool_jobs, start, name, arguments):
    result = tool_jobs.run(platform_job(start(PLATFORM), name, arguments))

    assert "should be" in result["error"]["content"][0]["text"]


@pytest.mark.parametrize("name", ["missing", "memory_write"])
def test_a_tool_that_the_request_does_not_allow_is_an_error(tool_jobs, start, name):
    response = start({**PLATFORM, "allowed_tools": ["memory_search"]})

    result = tool_jobs.run(platform_job(response, name, '{"text": "x"}'))

    assert "has no tool" in result["error"]["content"][0]["text"]
