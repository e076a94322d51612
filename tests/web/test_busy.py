"""Given a place whose turn is unfinished, when another turn comes there, then it waits, gives up or makes way."""

from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from models.attempts import claim
from tests.web.visiting import refused


@pytest.fixture(params=["conversation", "previous_response_id"])
def place(request, visitor):
    """Where turns go on: a conversation, or a chain that begins with an unfinished turn."""
    if request.param == "conversation":
        return {"conversation": visitor.request("POST", "/v1/conversations").json()["id"]}
    return {"previous_response_id": visitor.ask()["id"]}


def post(visitor, place, **body):
    sent = {"input": "hello", "background": True, **place, **body}
    return visitor.request("POST", "/v1/responses", json=sent)


def state(visitor, turn):
    return visitor.request("GET", f"/v1/jobs/{turn['job_id']}").json()


def test_another_turn_waits_unless_its_caller_would_rather_not(visitor, place):
    first, second = post(visitor, place).json(), post(visitor, place, if_busy="queue").json()

    conflict = post(visitor, place, if_busy="reject")

    assert first["status"] == second["status"] == "queued"
    refused(conflict, 409, param="if_busy", code="conversation_busy")
    assert conflict.headers["x-should-retry"] == "false"


def test_of_two_that_come_at_once_and_would_not_wait_one_passes(visitor):
    place = {"conversation": visitor.request("POST", "/v1/conversations").json()["id"]}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(visitor, place, if_busy="reject").status_code, range(8)))

    assert sorted(answers) == [200] + [409] * 7


def test_an_interrupt_stops_what_runs_and_what_waits(visitor, place, database):
    running, waiting = post(visitor, place).json(), post(visitor, place).json()
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'queued' WHERE id = %s", (running["job_id"],))
        claim(connection, running["job_id"], message_id="a message", worker=f"worker of {running['job_id']}")

    third = post(visitor, place, if_busy="interrupt")

    assert third.status_code == 200, third.text
    assert state(visitor, running)["cancel_requested"]
    assert state(visitor, running)["state"] == "running", "its worker ends it, and keeps what was said"
    assert state(visitor, waiting)["state"] == "cancelled"
    assert state(visitor, third.json())["state"] == "queued"
    assert not state(visitor, third.json())["cancel_requested"]


def test_another_accounts_turns_are_no_matter(visitor, stranger):
    theirs = {"conversation": visitor.request("POST", "/v1/conversations").json()["id"]}
    turn = post(visitor, theirs).json()

    refused(post(stranger, theirs, if_busy="interrupt"), 404, param="conversation")

    assert state(visitor, turn)["state"] == "queued"


def test_the_last_event_of_a_turn_that_never_ran_shows_it(visitor):
    turn = visitor.ask(metadata={"a": "b"})
    visitor.request("POST", f"/v1/responses/{turn['id']}/cancel")

    stream = visitor.request("GET", f"/v1/responses/{turn['id']}?stream=true").text

    last = orjson.loads(stream.rstrip().rpartition("data: ")[2])
    assert last["type"] == "sangha.job.cancelled"
    assert last["response"] == visitor.request("GET", f"/v1/responses/{turn['id']}").json()
    assert last["response"]["status"] == "cancelled"
