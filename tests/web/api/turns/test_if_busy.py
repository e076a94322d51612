"""Turns that arrive while another turn of their conversation is unfinished: `if_busy` queues, rejects or interrupts."""

from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from models.jobs.attempts import claim
from tests.web.api_client import assert_error


@pytest.fixture(params=["conversation", "previous_response_id"])
def thread(request, user):
    """A conversation, or a chain of responses whose first turn is unfinished."""
    if request.param == "conversation":
        return {"conversation": user.request("POST", "/v1/conversations").json()["id"]}
    return {"previous_response_id": user.create_response()["id"]}


def create_turn(user, thread, **body):
    json = {"input": "hello", "background": True, **thread, **body}
    return user.request("POST", "/v1/responses", json=json)


def get_job(user, turn):
    return user.request("GET", f"/v1/jobs/{turn['job_id']}").json()


def test_a_second_turn_is_queued_by_default_and_rejected_on_request(user, thread):
    first, second = create_turn(user, thread).json(), create_turn(user, thread, if_busy="queue").json()

    conflict = create_turn(user, thread, if_busy="reject")

    assert first["status"] == second["status"] == "queued"
    assert_error(conflict, 409, param="if_busy", code="conversation_busy")
    assert conflict.headers["x-should-retry"] == "false"


def test_one_of_eight_concurrent_turns_with_reject_is_accepted(user):
    thread = {"conversation": user.request("POST", "/v1/conversations").json()["id"]}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create_turn(user, thread, if_busy="reject").status_code, range(8)))

    assert sorted(answers) == [200] + [409] * 7


def test_interrupt_cancels_the_running_turn_and_the_queued_ones(user, thread, database):
    running, waiting = create_turn(user, thread).json(), create_turn(user, thread).json()
    with database.connection() as connection:
        connection.execute(  # the first turn of the chain
            "UPDATE jobs SET state = 'completed' WHERE account_id = %s AND kind = 'turn.run' AND id <> ALL(%s)",
            (user.caller.account_id, [running["job_id"], waiting["job_id"]]),
        )
        claim(connection, running["job_id"], message_id="a message", worker=f"worker of {running['job_id']}")

    third = create_turn(user, thread, if_busy="interrupt")

    assert third.status_code == 200, third.text
    assert get_job(user, running)["cancel_requested"]
    assert get_job(user, running)["state"] == "running", "its worker ends it and keeps the partial answer"
    assert get_job(user, waiting)["state"] == "cancelled"
    assert get_job(user, third.json())["state"] == "queued"
    assert not get_job(user, third.json())["cancel_requested"]


def test_interrupt_does_not_reach_turns_of_another_account(user, other_user):
    thread = {"conversation": user.request("POST", "/v1/conversations").json()["id"]}
    turn = create_turn(user, thread).json()

    assert_error(create_turn(other_user, thread, if_busy="interrupt"), 404, param="conversation")

    assert get_job(user, turn)["state"] == "queued"


def test_last_event_of_a_turn_cancelled_in_the_queue_carries_the_response(user):
    turn = user.create_response(metadata={"a": "b"})
    user.request("POST", f"/v1/responses/{turn['id']}/cancel")

    path = f"/v1/responses/{turn['id']}?stream=true"
    stream = user.request("GET", path, headers={"X-Sangha-Events": "all"}).text

    last = orjson.loads(stream.rstrip().rpartition("data: ")[2])
    assert last["type"] == "sangha:job.cancelled"
    assert last["response"] == user.request("GET", f"/v1/responses/{turn['id']}").json()
    assert last["response"]["status"] == "cancelled"
