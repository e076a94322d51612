"""What one member has is nothing that another can name in a body, find in a list, or read in a job."""

import pytest

from models.platform.ids import new_id
from tests.web.principals import Resources

#: The members who have the resources, and those who try to use them.
PAIRS = [("owner", "member"), ("member", "admin"), ("member", "owner"), ("member", "write key")]


@pytest.fixture
def resources(principals, database):
    return lambda person: Resources(principals, database, person)


def bodies(ids):
    """Return requests that name a conversation, a response or an item."""
    reference = [{"type": "item_reference", "id": ids["item_id"]}]
    turns = [
        {"input": "hello", "conversation": ids["conversation_id"]},
        {"input": "hello", "previous_response_id": ids["response_id"]},
        {"input": [*reference, {"role": "user", "content": "hello"}]},
    ]
    schedule = {"name": "daily", "trigger": {"type": "cron", "expression": "0 9 * * *"}}
    yield from (("/v1/responses", {**turn, "background": True}) for turn in turns)
    yield from (("/v1/responses/input_tokens", turn) for turn in turns)
    yield from (("/v1/schedules", {**schedule, "work": {"kind": "turn", "request": turn}}) for turn in turns)
    yield "/v1/conversations", {"items": reference}


#: What nobody has.
MISSING = {"conversation_id": new_id("conv"), "response_id": new_id("resp"), "item_id": new_id("msg")}


@pytest.mark.parametrize(("person", "other"), PAIRS[:3])
def test_ids_of_another_member_in_a_body_are_unknown(principals, resources, person, other):
    ids = resources(person)

    for (path, body), (_, missing_body) in zip(bodies(ids), bodies(MISSING), strict=True):
        of_other = principals.request(other, "POST", path, json=body)
        missing = principals.request(other, "POST", path, json=missing_body)

        assert of_other.status_code in (400, 404), (path, body, of_other.text)
        text = of_other.text
        for name, value in MISSING.items():
            text = text.replace(ids[name], value)
        assert (of_other.status_code, text) == (missing.status_code, missing.text)


@pytest.mark.parametrize(("person", "other"), PAIRS[:1])
def test_its_owner_can_name_them(principals, resources, person, other):
    for path, body in bodies(resources(person)):
        if path != "/v1/responses/input_tokens":  # which waits for a worker
            assert principals.request(person, "POST", path, json=body).is_success, (path, body)


@pytest.mark.parametrize(("person", "other"), PAIRS)
def test_jobs_are_listed_for_their_owner_and_for_admins_who_see_no_result(
    principals, resources, database, person, other
):
    job_id, key = resources(person)["job_id"], "read key" if other.endswith("key") else other
    with database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'completed', finished_at = now(), result = '{\"a\": 1}' WHERE id = %s", (job_id,)
        )

    listed = {job["id"]: job for job in principals.request(key, "GET", "/v1/jobs").json()["data"]}
    own = {job["id"]: job for job in principals.request(person, "GET", "/v1/jobs").json()["data"]}

    assert own[job_id]["result"] == {"a": 1}
    assert (job_id in listed) is (other != "member")
    if job_id in listed:
        assert listed[job_id] == {**own[job_id], "result": None}
        assert principals.request(key, "GET", f"/v1/jobs/{job_id}").json() == listed[job_id]


def test_rows_of_an_earlier_version_belong_to_the_user_of_the_turn(principals, resources, database):
    ids = resources("member")
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET owner_id = NULL WHERE id = %s", (ids["job_id"],))
        connection.execute("UPDATE conversations SET owner_id = NULL WHERE id = %s", (ids["conversation_id"],))

    for path in (f"/v1/jobs/{ids['job_id']}/events", f"/v1/conversations/{ids['conversation_id']}"):
        statuses = [principals.request(name, "GET", path).status_code for name in ("member", "owner", "admin")]
        assert statuses == [200, 404, 404], path


def test_what_belonged_to_a_deleted_user_belongs_to_nobody(principals, resources, database):
    ids, names = resources("member"), ("response_id", "conversation_id", "job_id")
    assert all(ids[name] for name in names)
    with database.connection() as connection:
        connection.execute("DELETE FROM users WHERE id = %s", (principals.user_ids["member"],))

    for path in (
        f"/v1/responses/{ids['response_id']}",
        f"/v1/conversations/{ids['conversation_id']}/items",
        f"/v1/jobs/{ids['job_id']}/events",
    ):
        statuses = [principals.request(name, "GET", path).status_code for name in ("owner", "admin")]
        assert statuses == [404, 404], path
