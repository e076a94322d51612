"""Trees of agents, run job by job: who is asked, what each may use, and where the limits of the tree end it."""

from functools import partial

import pytest

from models.agents import agents
from models.jobs import attempts, children
from models.jobs.attempt_context import WaitForChildren, open_attempt
from models.jobs.budgets import remaining
from models.platform.database import fetch_one
from models.platform.errors import PermanentFailure
from models.platform.ids import new_id
from models.platform.script import Script
from models.turns.response_deletion import delete_expired
from models.turns.responses import Response
from pipelines.agents.server_tools import load_tools
from pipelines.chat import turn
from pipelines.inference.scripted.engine import ScriptedEngine
from tests.pipelines.chat.conftest import TurnHarness

DUE = """
SELECT id FROM jobs WHERE account_id = %(account_id)s AND kind = 'turn.run' AND state = 'queued'
ORDER BY depth DESC, id LIMIT 1
"""

OF_TREE = """
SELECT responses.id, request -> 'agent' ->> 'name' AS agent, depth, state, incomplete_details, usage
FROM responses JOIN jobs ON jobs.id = job_id WHERE responses.account_id = %(account_id)s ORDER BY depth, responses.id
"""


@pytest.fixture
def trees(database, redis_client, settings):
    """Agents of an account, and a worker for their turns."""
    trees = Trees(database, redis_client, settings)
    yield trees
    trees.harness.close()


class Trees:
    def __init__(self, database, redis_client, settings):
        self.harness = TurnHarness(database, redis_client)
        self.account_id = self.harness.caller.account_id
        self.database = database
        self.settings = settings.model_copy(update={"engine": "scripted", "script": Script(tokens=10, rate=0)})
        self.engine = ScriptedEngine(self.settings)

    def agent(self, name, **definition):
        with self.database.transaction() as connection:
            agents.insert(connection, agent_id=new_id("agent"), account_id=self.account_id, name=name,
                          definition=definition, metadata={}, user_id=None)  # fmt: skip

    def ask(self, name, question="go", **request):
        """Run a turn of an agent with its tree to the end. Returns its stored response."""
        started = self.harness.start(
            question, model=f"agent/{name}", engine_model="scripted", memory={"remember": False}, **request
        )
        while row := self._row(DUE):
            self._run(row["id"])
        return self.harness.stored_response(started)

    def tree(self):
        """Return agent, depth and state of each turn."""
        with self.database.connection() as connection:
            return list(connection.execute(OF_TREE, {"account_id": self.account_id}))

    def left(self, response: Response):
        with self.database.connection() as connection:
            return remaining(connection, response.job_id)

    def _row(self, statement):
        with self.database.connection() as connection:
            return fetch_one(connection, statement, {"account_id": self.account_id})

    def _run(self, job_id):
        with self.database.connection() as connection:
            job = attempts.claim(connection, job_id, message_id=new_id("message"), worker=new_id("worker"))
        attempt = open_attempt(job, self.database, self.harness.client, self.harness.writer)
        try:
            self._settle(attempt, turn.run(self.engine, attempt, load_tools=partial(load_tools, self.settings)))
        except PermanentFailure as error:
            self._settle(attempt, turn.end(attempt, "failed", {"code": error.code, "message": error.message}))

    def _settle(self, attempt, outcome):
        if not isinstance(outcome, WaitForChildren):
            self.harness.settle(attempt, outcome)
            return
        with self.database.transaction() as connection:
            children.wait_for_children(
                connection, attempt.job, outcome.children, attempt.journal.archivable(), join_rule=outcome.join_rule,
                record=outcome.record, spent=outcome.spent,
            )  # fmt: skip


def calls_of(response):
    return [(item["name"], item["status"]) for item in response.output if item["type"] == "mcp_call"]


def tokens_of(rows):
    return sum(row["usage"]["total_tokens"] for row in rows)


def test_agents_that_are_asked_at_once_answer_to_the_one_that_asks(trees):
    trees.agent("worker", instructions="Work.")
    trees.agent("boss", instructions="call agents__worker 3 times", agents=[{"name": "worker"}])

    response = trees.ask("boss")

    assert (response.status, calls_of(response)) == ("completed", [("worker", "completed")] * 3)
    assert [(row["agent"], row["depth"], row["state"]) for row in trees.tree()] == [
        ("boss", 0, "completed"), *[("worker", 1, "completed")] * 3,
    ]  # fmt: skip


@pytest.mark.parametrize("tokens", [100, 300, 700, 1500, 20_000])
def test_the_tokens_of_a_tree_are_never_more_than_its_limit(trees, tokens):
    trees.agent("worker", instructions="Work.")
    trees.agent("lead", instructions="call agents__worker 2 times", agents=[{"name": "worker"}])
    trees.agent("boss", instructions="call agents__lead 2 times", agents=[{"name": "lead"}], limits={"tokens": tokens})

    response = trees.ask("boss")

    rows = trees.tree()
    assert tokens_of(rows) <= tokens
    assert response.status == ("completed" if tokens > 1000 else response.status)
    assert all(row["state"] == "completed" for row in rows)
    assert len(rows) == 7 or {(row["incomplete_details"] or {}).get("reason") for row in rows} & {"budget"}
    # What was drawn and not used was given back; the last step of the root is counted by nobody.
    assert trees.left(response).tokens >= tokens - tokens_of(rows)


def test_an_agent_that_asks_itself_ends_at_the_depth_of_its_tree(trees):
    trees.agent("echo", instructions="call agents__echo", agents=[{"name": "echo"}], limits={"depth": 3})

    response = trees.ask("echo")

    assert response.status == "completed"
    assert [row["depth"] for row in trees.tree()] == [0, 1, 2, 3]


def test_the_number_of_delegations_holds_for_all_of_a_tree(trees):
    trees.agent("worker", instructions="Work.")
    trees.agent("boss", instructions="call agents__worker 2 times in 5 steps", agents=[{"name": "worker"}],
                limits={"children": 4})  # fmt: skip

    response = trees.ask("boss")

    assert len(calls_of(response)) == 4
    assert trees.left(response).calls == 0
    assert response.status == "completed"  # without a tool to call, the agent answered


def test_a_handoff_lets_another_agent_answer(trees):
    trees.agent("expert", instructions="You are the expert. call agents__transfer_to_nobody")
    trees.agent("desk", instructions="call agents__transfer_to_expert", agents=[{"name": "expert", "handoff": True}])

    response = trees.ask("desk")

    assert (response.status, calls_of(response)) == ("completed", [("transfer_to_expert", "completed")])
    assert response.output[-1]["type"] == "message"
    assert len(trees.tree()) == 1


def test_the_turns_of_a_tree_that_is_not_stored_are_deleted_with_its_root(trees):
    # Given an ended tree, of which an hour has passed
    trees.agent("worker", instructions="Work.")
    trees.agent("boss", instructions="call agents__worker 2 times", agents=[{"name": "worker"}])
    response = trees.ask("boss", store=False)
    with trees.database.transaction() as connection:
        connection.execute("UPDATE responses SET expires_at = now() - interval '1 hour'")
        age = "UPDATE jobs SET finished_at = now() - interval '1 hour' WHERE account_id = %s AND depth = 1"
        connection.execute(age, (trees.account_id,))

        # When the turns of the agents have expired, and the root has not
        assert delete_expired(connection) == []
        assert len(trees.tree()) == 3

    # Then all are deleted with the root
    with trees.database.transaction() as connection:
        connection.execute("UPDATE jobs SET finished_at = now() - interval '1 hour' WHERE id = %s", (response.job_id,))
        assert delete_expired(connection) == [response.job_id]
    assert trees.tree() == []


def test_an_agents_limit_of_output_holds_for_all_generations_of_a_turn(trees):
    trees.agent("worker", instructions="Work.")
    trees.agent("boss", instructions="call agents__worker", agents=[{"name": "worker"}], max_output_tokens=5)

    response = trees.ask("boss")

    assert (response.status, response.incomplete_details) == ("incomplete", {"reason": "max_output_tokens"})
    assert response.usage["output_tokens"] == 5


def test_a_tree_keeps_the_versions_that_its_agents_had_when_they_were_asked(trees):
    trees.agent("worker", instructions="Work.")
    trees.agent("boss", instructions="call agents__worker", agents=[{"name": "worker"}])
    first = trees.ask("boss")
    with trees.database.transaction() as connection:
        worker = agents.named(connection, trees.account_id, "worker")
        agents.delete(connection, worker.id)

    second = trees.ask("boss")

    assert calls_of(first) == [("worker", "completed")]
    assert calls_of(second) == []  # the agent that was deleted is not offered
