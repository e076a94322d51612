"""`/v1/schedules`: creating, firing, pausing, updating and deleting schedules, and invalid schedules."""

import time

import pytest

from models.accounts.accounts import Role
from models.platform.ids import new_id
from models.schedules.schedules import set_next_fire
from pipelines.schedules.firing import fire_due
from tests.web.api_client import assert_error

TURN = {"kind": "turn", "request": {"input": "hello", "metadata": {"a": "b"}}}
DAILY = {"type": "cron", "expression": "0 9 * * 1-5", "time_zone": "Europe/Berlin"}
HOURLY = {"type": "interval", "seconds": 3600}


@pytest.fixture
def create_schedule(user):
    """`create_schedule(…)` → the object of a new schedule."""

    def create_schedule(**fields):
        answer = user.request(
            "POST", "/v1/schedules", json={"name": "a test", "trigger": HOURLY, "work": TURN, **fields}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    return create_schedule


@pytest.fixture
def get_schedule(user):
    return lambda path: user.request("GET", f"/v1/schedules/{path}").json()


@pytest.fixture
def fire(user, database, settings):
    """`fire(id)` fires a schedule as if its time had come."""

    def fire(schedule_id):
        with database.transaction() as connection:
            row = connection.execute("SELECT date_trunc('second', now()) AS now").fetchone()
            set_next_fire(connection, schedule_id, row["now"], row["now"])
        list(fire_due(database, settings, ["turn"]))

    return fire


def test_a_schedule_object_has_its_settings_and_next_fire_times(create_schedule, get_schedule):
    before = int(time.time())
    created = create_schedule(name="the news", trigger=DAILY, if_missed="skip", grace_seconds=600)

    assert created["object"] == "schedule"
    assert (created["name"], created["status"], created["paused"]) == ("the news", "active", False)
    assert (created["trigger"], created["work"]) == (DAILY, TURN | {"space": None, "report": None})
    assert (created["if_missed"], created["grace_seconds"], created["last_firing"]) == ("skip", 600, None)
    assert len(created["next_fire_times"]) == 5
    assert before < created["next_fire_times"][0] <= created["next_fire_times"][4] < before + 9 * 86_400
    assert get_schedule(created["id"]) == created


def test_a_firing_references_the_turn_that_it_started(create_schedule, get_schedule, fire, user):
    created = create_schedule()

    fire(created["id"])

    (firing,) = get_schedule(f"{created['id']}/firings")["data"]
    assert (firing["status"], firing["job_state"], firing["error"]) == ("started", "queued", None)
    turn = user.request("GET", f"/v1/responses/{firing['response_id']}").json()
    assert (turn["job_id"], turn["metadata"], turn["background"]) == (firing["job_id"], {"a": "b"}, True)
    assert turn["model"] == "scripted"
    assert get_schedule(created["id"])["last_firing"] == firing


def test_turns_of_a_schedule_stay_where_the_key_that_created_it_keeps_them(user, fire, database):
    # Given a key whose turns may not leave
    new_key = {"name": "at home", "scopes": ["inference", "read", "write"], "residency": "local"}
    key = user.request("POST", "/v1/api_keys", json=new_key).json()["key"]
    # When it creates a schedule, which fires
    body = {"name": "a test", "trigger": HOURLY, "work": TURN}
    created = user.client.post("/v1/schedules", json=body, headers={"Authorization": f"Bearer {key}"}).json()
    fire(created["id"])
    # Then the turn may not leave, either
    with database.connection() as connection:
        row = connection.execute(
            "SELECT arguments ->> 'residency' AS residency FROM jobs WHERE account_id = %s AND kind = 'turn.run'",
            (user.caller.account_id,),
        ).fetchone()
    assert row["residency"] == "local"


def test_turns_of_a_schedule_use_the_models_of_the_key_that_created_it(user, fire, get_schedule, database):
    # Given keys for the model that is served, and for another one
    def create(model):
        new_key = {"name": model, "scopes": ["inference", "read", "write"], "models": [model]}
        key = user.request("POST", "/v1/api_keys", json=new_key).json()["key"]
        body = {"name": "a test", "trigger": HOURLY, "work": TURN}
        return user.client.post("/v1/schedules", json=body, headers={"Authorization": f"Bearer {key}"})

    # When they create schedules, then only the first one may
    refused = create("other")
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "work.request.model")
    kept, changed = create("scripted").json()["id"], create("scripted").json()["id"]

    # And a firing starts nothing whose model the key does not allow
    with database.connection() as connection:
        change = "UPDATE schedules SET plan = jsonb_set(plan, '{request,key_models}', '[\"other\"]') WHERE id = %s"
        connection.execute(change, (changed,))
    fire(kept)
    fire(changed)
    assert get_schedule(kept)["last_firing"]["status"] == "started"
    refused = get_schedule(changed)["last_firing"]
    assert refused["status"] == "refused"
    assert "does not include the model 'scripted'" in refused["error"]["message"]


def test_a_schedule_for_one_time_ends_after_it(create_schedule, get_schedule, fire, database):
    created = create_schedule(trigger={"type": "once", "at": int(time.time()) + 3600})
    assert created["next_fire_times"] == [created["trigger"]["at"]]

    with database.connection() as connection:
        connection.execute(
            "UPDATE schedules SET trigger = trigger || '{\"at\": 1700000000}' WHERE id = %s", (created["id"],)
        )
    fire(created["id"])

    ended = get_schedule(created["id"])
    assert (ended["status"], ended["next_fire_times"]) == ("ended", [])
    assert ended["last_firing"]["status"] == "started"


def test_a_paused_schedule_has_no_next_fire_times(create_schedule, get_schedule, user):
    created = create_schedule(paused=True)
    assert (created["status"], created["next_fire_times"]) == ("paused", [])

    resumed = user.request("POST", f"/v1/schedules/{created['id']}/resume").json()
    assert (resumed["status"], len(resumed["next_fire_times"])) == ("active", 5)
    for _ in range(2):
        paused = user.request("POST", f"/v1/schedules/{created['id']}/pause").json()
        assert (paused["status"], paused["next_fire_times"]) == ("paused", [])
    changed = user.request("PATCH", f"/v1/schedules/{created['id']}", json={"trigger": DAILY}).json()
    assert (changed["status"], changed["trigger"]) == ("paused", DAILY)
    changed = user.request("PATCH", f"/v1/schedules/{created['id']}", json={"paused": False}).json()
    assert changed["status"] == "active"


def test_omitted_fields_stay_unchanged(create_schedule, user):
    created = create_schedule()
    work = {"kind": "turn", "request": {"input": "other"}}

    renamed = user.request("PATCH", f"/v1/schedules/{created['id']}", json={"name": "another"}).json()
    assert renamed == {**created, "name": "another", "updated_at": renamed["updated_at"]}
    changed = user.request("PATCH", f"/v1/schedules/{created['id']}", json={"work": work}).json()
    assert changed["work"] == work | {"space": None, "report": None}
    assert changed["next_fire_times"] == created["next_fire_times"]


def test_a_deleted_schedule_is_not_found(create_schedule, user):
    created = create_schedule()

    assert user.request("DELETE", f"/v1/schedules/{created['id']}").json()["deleted"]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("GET", "/firings")):
        assert_error(user.request(method, f"/v1/schedules/{created['id']}{path}"), 404, param="schedule_id")


def test_schedules_are_listed_in_pages(create_schedule, user):
    ids = [create_schedule()["id"] for _ in range(3)]

    first = user.request("GET", "/v1/schedules?limit=2").json()
    rest = user.request("GET", f"/v1/schedules?limit=2&after={first['last_id']}").json()

    assert [each["id"] for each in [*first["data"], *rest["data"]]] == ids[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"trigger": {"type": "daily"}}, "trigger.type"),
        ({"trigger": {**DAILY, "expression": "0 9 * * 8"}}, "trigger.expression"),
        ({"trigger": {**DAILY, "expression": "0 0 31 2 *"}}, "trigger.expression"),
        ({"trigger": {**DAILY, "time_zone": "Europe/Atlantis"}}, "trigger.time_zone"),
        ({"trigger": {**DAILY, "time_zone": "../../etc/passwd"}}, "trigger.time_zone"),
        ({"trigger": {**DAILY, "time_zone": "localtime"}}, "trigger.time_zone"),
        ({"trigger": {"type": "interval", "seconds": 59}}, "trigger.seconds"),
        ({"trigger": {**HOURLY, "start_at": 253_402_300_799}}, "trigger.start_at"),
        ({"trigger": {"type": "once", "at": 1}}, "trigger.at"),
        ({"work": {"kind": "nonsense"}}, "work.kind"),
        ({"work": {"kind": "turn"}}, "work.request"),
        ({"work": {"kind": "turn", "request": {}}}, "work.request.input"),
        ({"work": {"kind": "turn", "request": {"input": "x", "stream": True}}}, "work.request.stream"),
        ({"work": {"kind": "turn", "request": {"input": "x", "background": True}}}, "work.request.background"),
        ({"work": {"kind": "turn", "request": {"input": "x", "store": False}}}, "work.request.store"),
        ({"if_missed": "perhaps"}, "if_missed"),
        ({"grace_seconds": 0}, "grace_seconds"),
        ({"color": "red"}, "color"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(user, fields, param):
    body = {"name": "a test", "trigger": HOURLY, "work": TURN, **fields}

    assert_error(user.request("POST", "/v1/schedules", json=body), 400, param=param)


def test_an_unknown_model_is_not_found(user):
    body = {"name": "a test", "trigger": HOURLY, "work": {"kind": "turn", "request": {"input": "x", "model": "gpt"}}}

    answer = user.request("POST", "/v1/schedules", json=body)

    assert_error(answer, 404, param="work.request.model", code="model_not_found")


def test_an_oversized_request_is_rejected(user):
    work = {"kind": "turn", "request": {"input": "x" * 300_000}}

    answer = user.request("POST", "/v1/schedules", json={"name": "a test", "trigger": HOURLY, "work": work})

    assert_error(answer, 413, param="work.request")


def test_a_conversation_of_another_account_is_rejected(user, other_user):
    foreign_id = other_user.request("POST", "/v1/conversations").json()["id"]
    work = {"kind": "turn", "request": {"input": "x", "conversation": foreign_id}}

    answer = user.request("POST", "/v1/schedules", json={"name": "a test", "trigger": HOURLY, "work": work})

    assert_error(answer, 404, param="work.request.conversation")


def test_the_number_of_schedules_is_limited(create_schedule, user, database):
    created = create_schedule()
    copy = """
        INSERT INTO schedules (id, account_id, user_id, name, kind, trigger, if_missed, grace_seconds)
        SELECT id || '_' || n, account_id, user_id, name, kind, trigger, if_missed, grace_seconds
        FROM schedules, generate_series(1, 99) AS n WHERE id = %s"""
    with database.connection() as connection:
        connection.execute(copy, (created["id"],))

    answer = user.request("POST", "/v1/schedules", json={"name": "x", "trigger": HOURLY, "work": TURN})

    assert_error(answer, 409, code="too_many_schedules")


def test_an_idempotency_key_creates_one_schedule(user):
    body = {"name": "a test", "trigger": HOURLY, "work": TURN}
    headers = {"Idempotency-Key": new_id("key")}

    first, second = (user.request("POST", "/v1/schedules", json=body, headers=headers) for _ in range(2))

    assert first.json() == second.json()
    assert len(user.request("GET", "/v1/schedules").json()["data"]) == 1


def test_a_repeated_request_reads_the_schedule_of_which_no_copy_is_kept(user, database):
    """Given a schedule under a key, when it is changed and then deleted, then repetitions return the present one, and
    404; none is created again.
    """
    body, headers = {"name": "a test", "trigger": HOURLY, "work": TURN}, {"Idempotency-Key": new_id("key")}
    path = f"/v1/schedules/{user.request('POST', '/v1/schedules', json=body, headers=headers).json()['id']}"
    user.request("PATCH", path, json={"name": "renamed"})
    changed = user.request("POST", "/v1/schedules", json=body, headers=headers)
    user.request("DELETE", path)
    deleted = user.request("POST", "/v1/schedules", json=body, headers=headers)

    assert (changed.status_code, changed.json()["name"], deleted.status_code) == (201, "renamed", 404)
    assert user.request("GET", "/v1/schedules").json()["data"] == []
    with database.connection() as connection:
        query = "SELECT body FROM idempotency_keys WHERE key = %s"
        assert connection.execute(query, [headers["Idempotency-Key"]]).fetchone() == {"body": None}


def test_an_admin_reads_and_pauses_but_does_not_resume_or_change_schedules_of_others(
    user, other_user, create_schedule, database
):
    """The other user joins the user's account as an admin."""
    created = create_schedule()
    caller = other_user.caller
    admin = type(caller)(caller.user_id, user.caller.account_id, Role.ADMIN, session_id=caller.session_id)
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'admin')",
            (admin.account_id, admin.user_id),
        )
    other_user.token = other_user.client.app.state.platform.tokens.issue(admin)
    path = f"/v1/schedules/{created['id']}"

    assert other_user.request("GET", path).status_code == 200
    assert other_user.request("POST", f"{path}/pause").json()["paused"]
    assert_error(other_user.request("POST", f"{path}/resume"), 404)
    assert_error(other_user.request("PATCH", path, json={"work": TURN}), 404)
    with database.connection() as connection:
        connection.execute("UPDATE memberships SET role = 'member' WHERE user_id = %s", (admin.user_id,))
    assert_error(other_user.request("GET", path), 404)
    assert other_user.request("GET", "/v1/schedules").json()["data"] == []


@pytest.mark.parametrize("expression", ["@daily", "0  9 * * 1-5", "0\t9 * * *\n"])
def test_an_expression_is_spelled_as_in_crontab(create_schedule, expression):
    created = create_schedule(trigger={**DAILY, "expression": expression})

    assert created["trigger"]["expression"] == expression
    assert len(created["next_fire_times"]) == 5
