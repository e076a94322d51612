"""A turn waits for the lists of its servers, and goes on without those that cannot be had."""

import pytest

from models.jobs import jobs
from models.jobs.attempt_context import WaitForChildren
from models.jobs.jobs import NewJob
from models.platform.ids import new_id
from pipelines.agents.approvals import approval_reason
from pipelines.agents.server_tools import load_tools
from tests.pipelines.agents.conftest import mcp_tool
from tests.pipelines.agents.mcp.raw_server import RawServer, listing, raw_server, tool


@pytest.fixture
def load(database, agent_settings, begin):
    """`load(response, step)` → what a new attempt at the turn loads."""

    def load(response, step=0):
        attempt = begin(NewJob("turn.run", response.account_id, id=response.job_id))
        with database.connection() as connection:
            return load_tools(agent_settings, connection, attempt, response, None, step)

    return load


def insert_children(database, response, wait, age=0.0):
    """Insert the jobs that a turn waits for, as if it had done so some seconds ago."""
    with database.transaction() as connection:
        for child in wait.children:
            jobs.enqueue(connection, child)
            connection.execute(
                "UPDATE jobs SET parent_id = %s, created_at = now() - make_interval(secs => %s) WHERE id = %s",
                (response.job_id, age, child.id),
            )


def test_a_turn_waits_for_a_list_that_is_not_cached_and_then_offers_its_tools(start, load, tool_jobs):
    with raw_server(RawServer(tools__list=listing(tool("buy")))) as url:
        response = start(mcp_tool(url))

        # When / Then
        wait = load(response)
        assert isinstance(wait, WaitForChildren)
        assert [child.kind for child in wait.children] == ["tool.list"]
        tool_jobs.list_tools(response)

    # Then
    assert set(load(response).server_tools) == {"tests__buy"}


def test_a_later_step_keeps_a_list_that_has_expired(start, load, tool_jobs, database):
    # Given
    with raw_server(RawServer(tools__list=listing(tool("buy")))) as url:
        response = start(mcp_tool(url))
        tool_jobs.list_tools(response)
    with database.connection() as connection:
        connection.execute("UPDATE mcp_tool_lists SET expires_at = now() WHERE account_id = %s", (response.account_id,))

    # When / Then
    assert isinstance(load(response), WaitForChildren)
    assert set(load(response, step=1).server_tools) == {"tests__buy"}


def test_a_turn_goes_on_without_a_list_that_no_worker_brings(start, load, database):
    # Given
    response = start(mcp_tool("http://127.0.0.1:9/mcp"))
    insert_children(database, response, load(response), age=60)

    # When
    tools = load(response)

    # Then
    assert tools.server_tools == {}
    assert [each.error for each in tools.listings] == ["No worker has listed the server's tools within 30 seconds."]


def test_a_turn_waits_on_for_a_list_that_a_worker_may_still_bring(start, load, database):
    response = start(mcp_tool("http://127.0.0.1:9/mcp"))
    insert_children(database, response, load(response), age=5)

    wait = load(response)

    assert isinstance(wait, WaitForChildren)
    assert wait.children == []


def test_a_label_that_no_server_has_is_an_error_of_its_list(start, load):
    tools = load(start({"type": "mcp", "server_label": "missing"}))

    assert [(each.label, each.error) for each in tools.listings] == [
        ("missing", "No MCP server with the label 'missing' is registered.")
    ]


class TestApprovedCalls:
    @pytest.fixture
    def changed(self, start, tool_jobs):
        """A turn whose server has changed the definition of its tool since it was pinned."""
        lists = [listing(tool("buy")), listing(tool("buy", description="Buy more."))]
        with raw_server(RawServer(tools__list=lists)) as url:
            response = start(mcp_tool(url))
            tool_jobs.list_tools(response)
            tool_jobs.list_tools(start(mcp_tool(url)))
        return response

    def make_call(self, database, tools, approval_id):
        item = {"id": "mcp_1", "type": "mcp_call", "server_label": "tests", "name": "buy", "arguments": "{}",
                "approval_request_id": approval_id}  # fmt: skip
        with database.transaction() as connection:
            tools.make_child(connection, item, {"job_id": new_id("job")}).record(connection)

    def test_an_approved_call_pins_the_changed_definition(self, database, changed, load):
        before = load(changed)
        assert approval_reason("never", before.named("tests", "buy").tool, "{}") == "tool_changed"

        self.make_call(database, before, "mcpr_1")

        assert approval_reason("never", load(changed).named("tests", "buy").tool, "{}") is None

    def test_another_call_pins_nothing(self, database, changed, load):
        self.make_call(database, load(changed), None)

        assert load(changed).named("tests", "buy").tool.changed
