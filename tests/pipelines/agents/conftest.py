"""Turns whose tools are called by jobs that the tests run."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models.accounts import accounts
from models.accounts.accounts import Caller, Role
from models.jobs.jobs import NewJob
from models.platform.database import Database
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.settings import Settings
from models.turns.responses import Response
from pipelines.agents import tool_call, tool_lists
from pipelines.agents.servers import references
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.start_turn import new_turn_ids, start_turn
from tests.accounts import delete_accounts
from tests.pipelines.conftest import Begin, Settle

REQUEST = {
    "model": "scripted", "instructions": None, "background": False, "metadata": {}, "temperature": None, "top_p": None,
    "max_output_tokens": None, "user": None,
}  # fmt: skip

StartTurn = Callable[..., Response]


@pytest.fixture
def caller(database: Database) -> Iterator[Caller]:
    """The owner of an account of the test's own."""
    with database.transaction() as connection:
        member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
    yield Caller(member.user_id, member.account_id, Role.OWNER)
    delete_accounts(database, [member.account_id])


@pytest.fixture
def start(database: Database, caller: Caller) -> StartTurn:
    """`start(*tools, **request)` accepts a turn with these tools, and returns its response."""

    def start(*tools: dict[str, Any], **request: Any) -> Response:
        message = {"id": new_id("msg"), "type": "message", "role": "user",
                   "content": [{"type": "input_text", "text": "hello"}]}  # fmt: skip
        turn = NewTurn({**REQUEST, "tools": list(tools), **request}, [message], None, None)
        return start_turn(database, caller, turn, *new_turn_ids()).response

    return start


@pytest.fixture
def agent_settings(settings: Settings) -> Settings:
    """Settings that let requests go to the loopback address."""
    return settings.model_copy(update={"egress_allow": ("127.0.0.1",)})


class ToolJobs:
    """Runs the jobs of the tools pool for a turn."""

    def __init__(self, database: Database, settings: Settings, begin: Begin, settle: Settle) -> None:
        self.database = database
        self.settings = settings
        self.begin = begin
        self.settle = settle
        self.objects = ObjectStore.open(settings)

    def list_tools(self, response: Response) -> dict[str, Any]:
        """List the tools of the turn's only server, and return the result of the job."""
        with self.database.connection() as connection:
            [server] = references(self.settings, connection, response, response.request["tools"])
        attempt = self.begin(tool_lists.list_job(response, server))
        ending = tool_lists.run(self.settings, attempt)
        self.settle(attempt, ending)
        return ending.result

    def listed(self, response: Response) -> dict[str, Any]:
        """Return the tools of the turn's only server by name; None if they are not cached."""
        with self.database.connection() as connection:
            [server] = references(self.settings, connection, response, response.request["tools"])
            tools = tool_lists.read(connection, response.account_id, server)
        return tools if tools is None else {tool.name: tool for tool in tools}

    def run(self, job: NewJob, *, crash: bool = False) -> dict[str, Any]:
        """Attempt a job; with `crash` as if its worker died before the end was stored. Returns its result."""
        attempt = self.begin(job)
        ending = tool_call.run(self.settings, self.objects, attempt)
        if not crash:
            self.settle(attempt, ending)
        return ending.result


@pytest.fixture
def tool_jobs(database: Database, agent_settings: Settings, begin: Begin, settle: Settle) -> ToolJobs:
    return ToolJobs(database, agent_settings, begin, settle)


def call_job(response: Response, name: str, arguments: str = "{}", label: str = "tests", **more: Any) -> NewJob:
    """Return the job of a call, as a turn enqueues it."""
    item_id = new_id("mcp")
    return NewJob(
        "tool.call",
        response.account_id,
        arguments={"response_id": response.id, "item_id": item_id, "server_label": label, "name": name,
                   "arguments": arguments, "approved": False, **more},
        unique_key=f"tool_call:{item_id}",
    )  # fmt: skip


def mcp_tool(url: str, **fields: Any) -> dict[str, Any]:
    """Return the tool of a request for a server."""
    return {"type": "mcp", "server_label": "tests", "server_url": url, "require_approval": "never", **fields}


#: Approvals that rely on what the server says of its tools.
RELIES_ON_HINTS = {"require_approval": {"never": {"read_only": True}}}
