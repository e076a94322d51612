"""`/v1/agents`: versions of agents, who may change them, and turns with an agent as their model."""

import pytest

from models.accounts import account_data
from models.agents import agents
from models.jobs.budgets import remaining
from models.platform.ids import new_id
from pipelines.agents import credentials, manage_agents
from pipelines.agents.definitions import apply, parse
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
    ({"name": "a", "agents": ["a", {"name": "a", "handoff": True}]}, "agents[1]"),
    ({"name": "a", "memory": {"space": "anna"}}, "memory.space"),
    ({"name": "a", "tools": [{"type": "mcp", "server_label": "nobody"}]}, "tools"),
    ({"name": "a", "tools": [{"type": "mcp", "server_label": "agents"}]}, "tools[0].server_label"),
    ({"name": "a", "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 1}}}},
     "text.format.schema"),
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


SHOP = {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp", "authorization": "a-secret"}


def stored_definition(database, agent):
    statement = "SELECT definition FROM agent_versions WHERE agent_id = %s ORDER BY version DESC LIMIT 1"
    with database.connection() as connection:
        return connection.execute(statement, (agent["id"],)).fetchone()["definition"]


def test_credentials_of_tools_are_encrypted_and_not_returned(create_agent, database, settings):
    agent = create_agent(tools=[{**SHOP, "headers": {"X-Team": "a"}}])

    stored = stored_definition(database, agent)
    assert agent["tools"] == [{"type": "mcp", "server_label": "shop", "server_url": "https://shop.example/mcp"}]
    assert "a-secret" not in str(stored)
    unsealed = credentials.unseal(settings, stored["mcp_credentials"]["shop"])
    assert (unsealed.authorization, unsealed.headers) == ("a-secret", {"X-Team": "a"})


def test_a_change_of_tools_replaces_their_credentials(user, create_agent, database):
    agent = create_agent(tools=[SHOP])
    path = f"/v1/agents/{agent['id']}"

    user.request("PATCH", path, json={"instructions": "Sell."})
    assert set(stored_definition(database, agent)["mcp_credentials"]) == {"shop"}
    user.request("PATCH", path, json={"tools": [{**SHOP, "authorization": None}]})
    assert stored_definition(database, agent)["mcp_credentials"] == {}


def test_a_definition_larger_than_its_limit_is_rejected(user):
    tools = [{"type": "function", "name": f"f{n}", "description": "x" * 10_000} for n in range(30)]

    answer = user.request("POST", "/v1/agents", json={"name": "large", "tools": tools})

    assert answer.status_code == 413, answer.text


def test_an_account_has_a_limited_number_of_agents(user, create_agent, monkeypatch):
    monkeypatch.setattr(manage_agents, "MAX_AGENTS", 1)
    create_agent()

    answer = user.request("POST", "/v1/agents", json={"name": "second"})

    assert answer.status_code == 429, answer.text


def test_changes_of_agents_are_audit_events(user, create_agent):
    agent = create_agent()
    user.request("PATCH", f"/v1/agents/{agent['id']}", json={"name": "other"})
    user.request("DELETE", f"/v1/agents/{agent['id']}")

    events = user.request("GET", "/v1/audit_events").json()["data"]

    of_agents = [(each["action"], each["target"], each["details"]) for each in events]
    assert of_agents[:3] == [
        ("agent.deleted", agent["id"], {"name": "other"}),
        ("agent.changed", agent["id"], {"name": "other"}),
        ("agent.created", agent["id"], {"name": "helper"}),
    ]


def test_members_change_their_own_agents_and_admins_all(principals):
    body = {"instructions": "Be brief."}
    own, of_admin = (
        principals.request(principal, "POST", "/v1/agents", json={**body, "name": principal}).json()
        for principal in ("member", "admin")
    )
    path, others = f"/v1/agents/{own['id']}", f"/v1/agents/{of_admin['id']}"
    change = {"instructions": "Be long."}

    assert principals.request("member", "PATCH", path, json=change).status_code == 200
    assert principals.request("admin", "PATCH", path, json=change).status_code == 200
    assert principals.request("member", "GET", others).status_code == 200
    assert_error(principals.request("member", "PATCH", others, json=change), 403)
    assert_error(principals.request("member", "DELETE", others), 403)


def test_an_erased_users_agents_stay_without_their_name(user, create_agent, database):
    agent = create_agent()

    with database.transaction() as connection:
        account_data.close_user(connection, user.caller.user_id)
        kept = agents.read(connection, agent["id"], user.caller.account_id)

    assert kept is not None
    assert kept.created_by is None


def test_a_turn_is_not_remembered_where_its_agent_says_so(user, create_agent, database):
    create_agent(memory={"remember": False})

    forgotten = user.create_response(model="agent/helper")
    remembered = user.create_response(model="agent/helper", memory={"remember": True})

    statement = "SELECT unremembered FROM responses WHERE id = %s"
    with database.connection() as connection:
        pending = [connection.execute(statement, (each["id"],)).fetchone()["unremembered"]
                   for each in (forgotten, remembered)]  # fmt: skip
    assert pending == [False, True]


def test_an_agent_of_a_model_that_is_no_longer_served_is_not_found(user, create_agent, database):
    agent = create_agent(model="scripted")
    with database.connection() as connection:
        statement = "UPDATE agent_versions SET definition = definition || %s WHERE agent_id = %s"
        connection.execute(statement, ('{"model": "older"}', agent["id"]))

    answer = user.request("POST", "/v1/responses", json={"model": "agent/helper", "input": "hi", "background": True})

    assert_error(answer, 404, param="model", code="model_not_found")
    assert "'older'" in answer.json()["error"]["message"]


def test_the_plan_has_to_include_the_model_of_the_engine(user, create_agent, database):
    create_agent()
    with database.connection() as connection:
        limits = '{"models": ["another"]}'
        connection.execute("UPDATE accounts SET limits = %s WHERE id = %s", (limits, user.caller.account_id))

    answer = user.request("POST", "/v1/responses", json={"model": "agent/helper", "input": "hi", "background": True})

    assert_error(answer, 403, param="model", code="model_not_allowed")


def test_the_older_completions_have_no_agents(user, create_agent):
    create_agent()

    answer = user.request("POST", "/v1/completions", json={"model": "agent/helper", "prompt": "hi"})

    assert_error(answer, 400, param="model", code="unsupported_value")


def test_a_schedule_names_an_agent_that_exists(user, create_agent):
    body = {"name": "daily", "trigger": {"type": "cron", "expression": "0 9 * * *"}}

    def schedule(model):
        work = {"kind": "turn", "request": {"model": model, "input": "hi"}}
        return user.request("POST", "/v1/schedules", json={**body, "work": work})

    create_agent()
    assert schedule("agent/helper").status_code == 201
    assert_error(schedule("agent/nobody"), 404, param="work.request.model", code="model_not_found")


def test_a_model_is_an_agent_with_its_account_and_time(user, create_agent):
    agent = create_agent()

    model = user.request("GET", "/v1/models/agent/helper").json()

    assert model == {
        "id": "agent/helper", "object": "model", "created": agent["created_at"],
        "owned_by": user.caller.account_id, "status": "available",
    }  # fmt: skip
    assert_error(user.request("GET", "/v1/models/agent/nobody"), 404, code="model_not_found")


@pytest.mark.parametrize("choice", ["required", {"type": "mcp", "server_label": "sangha", "name": "memory_search"}])
def test_a_request_may_require_a_tool_of_its_agent(user, create_agent, choice):
    create_agent(tools=[{"type": "mcp", "server_label": "sangha"}])

    assert user.create_response(model="agent/helper", tool_choice=choice)["tool_choice"] == choice


def test_the_smaller_limit_of_output_tokens_counts(user, create_agent, database):
    agent = create_agent("brief", max_output_tokens=50)

    assert agent["max_output_tokens"] == 50
    for asked, effective in ((None, 50), (20, 20), (100, 50)):
        request = {"instructions": None, "max_output_tokens": asked}
        assert apply(parse(agent), request)["max_output_tokens"] == effective
