"""Given a place whose turn is unfinished, when another turn comes there, then it waits, gives up or makes way."""

from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from models.jobs.attempts import claim
from tests.web.api_client import assert_error


@pytest.fixture(params=["conversation", "previous_response_id"])
def place(request, user):
    """Where turns go on: a conversation, or a chain that begins with an unfinished turn."""
    if request.param == "conversation":
        return {"conversation": user.request("POST", "/v1/conversations").json()["id"]}
    return {"previous_response_id": user.create_response()["id"]}


def post(user, place, **body):
    sent = {"input": "hello", "background": True, **place, **body}
    return user.request("POST", "/v1/responses", json=sent)


def state(user, turn):
    return user.request("GET", f"/v1/jobs/{turn['job_id']}").json()


def test_another_turn_waits_unless_its_caller_would_rather_not(user, place):
    first, second = post(user, place).json(), post(user, place, if_busy="queue").json()

    conflict = post(user, place, if_busy="reject")

    assert first["status"] == second["status"] == "queued"
    assert_error(conflict, 409, param="if_busy", code="conversation_busy")
    assert conflict.headers["x-should-retry"] == "false"


def test_of_two_that_come_at_once_and_would_not_wait_one_passes(user):
    place = {"conversation": user.request("POST", "/v1/conversations").json()["id"]}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(user, place, if_busy="reject").status_code, range(8)))

    assert sorted(answers) == [200] + [409] * 7


def test_an_interrupt_stops_what_runs_and_what_waits(user, place, database):
    running, waiting = post(user, place).json(), post(user, place).json()
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'queued' WHERE id = %s", (running["job_id"],))
        claim(connection, running["job_id"], message_id="a message", worker=f"worker of {running['job_id']}")

    third = post(user, place, if_busy="interrupt")

    assert third.status_code == 200, third.text
    assert state(user, running)["cancel_requested"]
    assert state(user, running)["state"] == "running", "its worker ends it, and keeps what was said"
    assert state(user, waiting)["state"] == "cancelled"
    assert state(user, third.json())["state"] == "queued"
    assert not state(user, third.json())["cancel_requested"]


def test_another_accounts_turns_are_no_matter(user, other_user):
    theirs = {"conversation": user.request("POST", "/v1/conversations").json()["id"]}
    turn = post(user, theirs).json()

    assert_error(post(other_user, theirs, if_busy="interrupt"), 404, param="conversation")

    assert state(user, turn)["state"] == "queued"


def test_the_last_event_of_a_turn_that_never_ran_shows_it(user):
    turn = user.create_response(metadata={"a": "b"})
    user.request("POST", f"/v1/responses/{turn['id']}/cancel")

    stream = user.request("GET", f"/v1/responses/{turn['id']}?stream=true").text

    last = orjson.loads(stream.rstrip().rpartition("data: ")[2])
    assert last["type"] == "sangha.job.cancelled"
    assert last["response"] == user.request("GET", f"/v1/responses/{turn['id']}").json()
    assert last["response"]["status"] == "cancelled"
