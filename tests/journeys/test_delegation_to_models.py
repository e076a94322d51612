"""Agents with models of their own: a delegation goes to the queue of its agent's model, and a handoff does not."""

import pytest

from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

pytestmark = ON_REDIS

LARGE = "org/large:8b"

#: Answers of the default model and of the other one.
SMALL_ANSWER, LARGE_ANSWER = "w0 w1 ", "w0 w1 w2 w3 "

OF_ACCOUNT = """
SELECT depth, queue, arguments ->> 'residency' AS residency, request ->> 'engine_model' AS model, output
FROM jobs JOIN responses ON responses.job_id = jobs.id WHERE jobs.account_id = %s ORDER BY depth
"""

SEGMENTS = """
SELECT record.model, depth FROM usage_records AS record JOIN jobs ON jobs.id = job_id
WHERE record.account_id = %s ORDER BY depth
"""


@pytest.fixture(autouse=True)
def models(stack: Installation, user: AccountOwner) -> None:
    """Workers of two local models."""
    stack.start_worker("tokens=2,rate=0")
    stack.start_worker("tokens=4,rate=0", model_name=LARGE, default_model="scripted")
    wait_until(lambda: LARGE in {model["id"] for model in user.get("/v1/models")["data"]}, 10)


def create_agent(user: AccountOwner, name: str, **fields: object) -> None:
    response = user.request("POST", "/v1/agents", json={"name": name, **fields})
    assert response.status_code == 201, response.text


def test_a_delegation_goes_to_the_model_of_its_agent_with_the_residency_of_the_turn(
    stack: Installation, user: AccountOwner
) -> None:
    # Given an agent with another model than the agent that asks it
    create_agent(user, "expert", model=LARGE)
    create_agent(user, "boss", instructions="call agents__expert", agents=["expert"], approval="never")
    # When a turn that may not leave delegates
    ended = user.wait_for_end(user.create_response(model="agent/boss", residency="local")["id"])

    # Then the other model has answered in its own queue, and that turn may not leave, either
    assert ended["status"] == "completed"
    assert [item["type"] for item in ended["output"]] == ["mcp_call", "message"]
    boss, expert = stack.rows(OF_ACCOUNT, user.account)
    assert (boss["queue"], boss["residency"], expert["residency"]) == ("inference", "local", "local")
    assert expert["queue"].startswith("inference.org-large")
    assert expert["output"][0]["content"][0]["text"] == LARGE_ANSWER
    assert stack.rows(SEGMENTS, user.account) == [{"model": "scripted", "depth": 0}, {"model": LARGE, "depth": 1}]


def test_an_agent_with_another_model_cannot_take_over_a_turn(stack: Installation, user: AccountOwner) -> None:
    create_agent(user, "expert", model=LARGE)
    create_agent(
        user,
        "desk",
        instructions="call agents__transfer_to_expert",
        agents=[{"name": "expert", "handoff": True}],
        approval="never",
    )

    ended = user.wait_for_end(user.create_response(model="agent/desk")["id"])

    assert [item["type"] for item in ended["output"]] == ["message"]
    assert ended["output"][0]["content"][0]["text"] == SMALL_ANSWER
