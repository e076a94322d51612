"""`/v1/agents`: versions of agents, who may change them, and turns with an agent as their model."""

import pytest

from models.jobs.budgets import remaining
from models.platform.ids import new_id
from tests.web.api_client import assert_error


@pytest.fixture
def create_agent(user):
    """`create_agent(name, …)` → the object of a new agent."""

    def create_agent(name="helper", **fields):
        answer = user.request("POST", "/v1/agents", json={"name": name, "instructions": "Be brief.", **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return create_agent


def test_an_agent_has_its_definition_and_the_default_limits(user, create_agent):
    created = create_agent(description="Helps", metadata={"team": "a"}, limits={"steps": 3})

    assert (created["object"], created["version"], created["description"]) == ("agent", 1, "Helps")
    assert (created["instructions"], created["metadata"]) == ("Be brief.", {"team": "a"})
    assert created["limits"] == {
        "steps": 3, "tokens": None, "money": None, "depth": 3, "children": 16, "seconds": None,
    }  # fmt: skip
    assert user.request("GET", f"/v1/agents/{created['id']}").json() == created
    assert user.request("GET", "/v1/agents").json()["data"] == [created]


def test_a_change_of_the_definition_is_a_new_version_and_the_old_one_is_kept(user, create_agent):
    agent = create_agent()
    path = f"/v1/agents/{agent['id']}"

    changed = user.request("PATCH", path, json={"instructions": "Be long."}).json()
    unchanged = user.request("PATCH", path, json={"instructions": "Be long.", "metadata": {"a": "b"}}).json()

    assert (changed["version"], changed["instructions"]) == (2, "Be long.")
    assert (unchanged["version"], unchanged["metadata"]) == (2, {"a": "b"})
    assert user.request("GET", f"{path}?version=1").json()["instructions"] == "Be brief."
    versions = user.request("GET", f"{path}/versions?limit=1").json()
    assert ([each["version"] for each in versions["data"]], versions["has_more"]) == ([2], True)
    rest = user.request("GET", f"{path}/versions?after=2").json()
    assert [each["version"] for each in rest["data"]] == [1]


def test_a_change_with_another_version_than_expected_is_rejected(user, create_agent):
    path = f"/v1/agents/{create_agent()['id']}"
    user.request("PATCH", path, json={"instructions": "Be long."})

    lost = user.request("PATCH", path, json={"instructions": "Be short.", "expected_version": 1})

    assert_error(lost, 409, param="expected_version", code="version_conflict")
    assert user.request("GET", path).json()["instructions"] == "Be long."


def test_a_name_is_unique_until_its_agent_is_deleted(user, create_agent):
    agent = create_agent("helper")

    assert_error(user.request("POST", "/v1/agents", json={"name": "helper"}), 409, param="name", code="name_taken")
    assert user.request("DELETE", f"/v1/agents/{agent['id']}").json()["deleted"] is True
    assert create_agent("helper")["id"] != agent["id"]
    assert user.request("GET", f"/v1/agents/{agent['id']}").status_code == 404


@pytest.mark.parametrize(("fields", "param"), [
    ({"name": "Upper"}, "name"),
    ({"name": "a", "model": "other"}, "model"),
    ({"name": "a", "model": "agent/b"}, "model"),
    ({"name": "a", "agents": ["nobody"]}, "agents[0]"),
    ({"name": "a", "limits": {"depth": 6}}, "limits.depth"),
    ({"name": "a", "limits": {"money": "-1"}}, "limits.money"),
    ({"name": "a", "approval": "sometimes"}, "approval"),
])  # fmt: skip
def test_an_invalid_definition_names_the_field(user, fields, param):
    answer = user.request("POST", "/v1/agents", json=fields)

    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


def test_an_agent_may_delegate_to_itself_and_to_others(create_agent):
    create_agent("other")

    agent = create_agent("boss", agents=["boss", {"name": "other", "handoff": True}])

    assert agent["agents"] == [
        {"name": "boss", "handoff": False, "context": "task"},
        {"name": "other", "handoff": True, "context": "task"},
    ]


def test_another_account_has_agents_of_its_own(create_agent, other_user):
    agent, other = create_agent(), other_user

    assert other.request("GET", f"/v1/agents/{agent['id']}").status_code == 404
    assert other.request("GET", "/v1/agents").json()["data"] == []
    answer = other.request("POST", "/v1/responses", json={"model": "agent/helper", "input": "hi", "background": True})
    assert_error(answer, 404, param="model", code="model_not_found")


def test_a_turn_keeps_the_version_of_its_agent_and_opens_a_budget(user, create_agent, database):
    # Given
    agent = create_agent(limits={"tokens": 900, "children": 2, "depth": 1, "seconds": 60})

    # When
    body = {"model": "agent/helper", "input": "hi", "background": True}
    response = user.request("POST", "/v1/responses", json=body).json()

    # Then
    assert (response["model"], response["status"]) == ("agent/helper", "queued")
    with database.connection() as connection:
        left = remaining(connection, response["job_id"])
        row = connection.execute("SELECT request FROM responses WHERE id = %s", (response["id"],)).fetchone()
    assert (left.tokens, left.calls, left.depth) == (900, 2, 1)
    assert left.deadline_at is not None
    assert row["request"]["agent"] == {"id": agent["id"], "name": "helper", "version": 1}
    assert row["request"]["engine_model"] == "scripted"


def test_agents_are_listed_as_models(user, create_agent):
    create_agent()

    names = [model["id"] for model in user.request("GET", "/v1/models").json()["data"]]

    assert "agent/helper" in names


def test_a_repeated_creation_returns_the_same_agent(user):
    headers = {"Idempotency-Key": new_id("same")}

    first, second = (user.request("POST", "/v1/agents", json={"name": "once"}, headers=headers) for _ in range(2))

    assert (first.status_code, second.json()) == (201, first.json())
