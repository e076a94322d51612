"""Requests that join the turn of an earlier one with the same body, and those that must not."""

import pytest

from bench.harness.waiting import wait_until
from models.jobs.attempts import Ending, claim, end
from tests.web.api.turns.client_requests import CHAT, RETRY, STORED, UNSTORED, ClientRequest, abandoned, state, turns_of


def set_state(database, request, state):
    with database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = %s WHERE id = %s", (state, request.answer.headers["x-sangha-job-id"])
        )


def limit_jobs(database, user, count):
    """Limit the unfinished jobs of the user's account."""
    with database.connection() as connection:
        connection.execute(
            "UPDATE accounts SET limits = limits || %s::jsonb WHERE id = %s",
            (f'{{"unfinished_jobs": {count}}}', user.caller.account_id),
        )


def disconnects_in(redis_client):
    """Return the number of original requests whose client has disconnected."""
    keys = redis_client.keys("sangha:requests:*")
    return sum(entry.startswith(b"disconnected ") for key in keys for entry in redis_client.lrange(key, 0, -1))


@pytest.mark.parametrize("request_", [CHAT, UNSTORED])
def test_the_same_request_joins_the_abandoned_turn(user, database, start_and_disconnect, end_grace, request_):
    job_id = start_and_disconnect(*request_)
    wait_until(lambda: job_id in abandoned(database))

    # When the client sends the request again within the grace
    again = ClientRequest(user, *request_)

    # Then there is no second turn, and that client disconnects from the first one
    wait_until(lambda: job_id in abandoned(database))
    assert [job["id"] for job in turns_of(user)] == [job_id]
    again.disconnect()


def test_a_turn_that_was_joined_is_not_cancelled(user, database, start_and_disconnect, end_grace):
    job_id = start_and_disconnect(CHAT[0], {**CHAT[1], "stream": True})
    wait_until(lambda: job_id in abandoned(database))

    returned = ClientRequest(user, *CHAT, stream=True)
    end_grace()

    assert returned.answer.headers["x-sangha-job-id"] == job_id
    assert returned.answer.headers["idempotent-replayed"] == "true"
    assert state(user, job_id) == "queued"
    # And when this client disconnects too, the grace begins again
    returned.disconnect()
    wait_until(lambda: job_id in abandoned(database))


def test_the_same_request_begins_a_turn_once_the_first_one_was_cancelled(
    user, database, start_and_disconnect, end_grace
):
    first = start_and_disconnect(*CHAT)
    wait_until(lambda: first in abandoned(database))
    end_grace()

    assert start_and_disconnect(*CHAT) != first


def test_the_same_request_begins_a_turn_while_the_client_of_the_first_one_is_connected(user):
    first = ClientRequest(user, *CHAT, stream=True)
    second = ClientRequest(user, *CHAT, stream=True)

    assert first.answer.headers["x-sangha-job-id"] != second.answer.headers["x-sangha-job-id"]
    first.disconnect(), second.disconnect()


@pytest.mark.parametrize("request_", [CHAT, UNSTORED, STORED])
def test_a_numbered_retry_joins_the_turn_of_the_original_request(user, request_):
    # Given a request whose client has disconnected unnoticed, as after a lost network
    first = ClientRequest(user, *request_, stream=True)

    # When OpenAI's client sends a retry
    again = ClientRequest(user, *request_, RETRY, stream=True)

    # Then it reads the same turn from its first event on
    assert again.answer.headers["x-sangha-job-id"] == first.answer.headers["x-sangha-job-id"]
    first.disconnect(), again.disconnect()


@pytest.mark.parametrize("request_", [CHAT, STORED])
def test_a_retry_that_may_belong_to_two_requests_has_a_turn_of_its_own(user, request_):
    # Given the same request of two users of an application
    first = ClientRequest(user, *request_, stream=True)
    second = ClientRequest(user, *request_, stream=True)

    # When a client sends a retry
    retry = ClientRequest(user, *request_, RETRY, stream=True)

    # Then it joins neither
    job_ids = {each.answer.headers["x-sangha-job-id"] for each in (first, second, retry)}
    assert len(job_ids) == 3
    first.disconnect(), second.disconnect(), retry.disconnect()


def test_a_retry_joins_the_one_of_two_requests_that_has_no_answer(user, database):
    # Given two requests, of which the first has got its answer
    first = ClientRequest(user, *STORED, stream=True)
    second = ClientRequest(user, *STORED, stream=True)
    set_state(database, first, "completed")

    # When the second client sends a retry
    retry = ClientRequest(user, *STORED, RETRY, stream=True)

    # Then it joins its own turn
    assert retry.answer.headers["x-sangha-job-id"] == second.answer.headers["x-sangha-job-id"]
    first.disconnect(), second.disconnect(), retry.disconnect()


def test_a_retry_joins_the_answer_of_the_one_of_two_requests_whose_client_disconnected(user, database, redis_client):
    # Given two requests, both completed, the second without its client
    first = ClientRequest(user, *STORED, stream=True)
    second = ClientRequest(user, *STORED, stream=True)
    before = disconnects_in(redis_client)
    second.disconnect()
    wait_until(lambda: disconnects_in(redis_client) > before)
    for each in (first, second):
        set_state(database, each, "completed")

    # When a client sends a retry
    retry = ClientRequest(user, *STORED, RETRY, stream=True)

    # Then it joins the one whose answer nobody has received
    assert retry.answer.headers["x-sangha-job-id"] == second.answer.headers["x-sangha-job-id"]
    first.disconnect(), retry.disconnect()


@pytest.mark.parametrize("failure", ["rejected", "failed"])
def test_a_retry_of_a_request_that_failed_joins_no_other_request(user, database, failure):
    # Given a request whose turn fails, or which exceeds a limit, and the same request of another user
    failed = ClientRequest(user, *STORED, stream=True)
    if failure == "failed":
        set_state(database, failed, "failed")
    else:
        limit_jobs(database, user, 1)
        assert user.request("POST", STORED[0], json={**STORED[1], "stream": True}).status_code == 429
        limit_jobs(database, user, 100)
    other = failed if failure == "rejected" else ClientRequest(user, *STORED, stream=True)

    # When the client of the first one sends a retry
    retry = ClientRequest(user, *STORED, RETRY, stream=True)

    # Then it has a turn of its own
    assert retry.answer.headers["x-sangha-job-id"] != other.answer.headers["x-sangha-job-id"]
    failed.disconnect(), other.disconnect(), retry.disconnect()


def test_a_request_does_not_join_an_abandoned_turn_while_the_same_request_is_open(user, database, start_and_disconnect):
    abandoned_job = start_and_disconnect(*CHAT, stream=True)
    wait_until(lambda: abandoned_job in abandoned(database))
    # Given another client with the same request, which is connected
    connected = ClientRequest(user, *CHAT, RETRY, stream=True)
    assert connected.answer.headers["x-sangha-job-id"] == abandoned_job

    second = ClientRequest(user, *CHAT, stream=True)

    assert second.answer.headers["x-sangha-job-id"] != abandoned_job
    connected.disconnect(), second.disconnect()


def test_a_numbered_retry_with_another_body_joins_nothing(user, start_and_disconnect):
    first = start_and_disconnect(*STORED)

    assert start_and_disconnect(STORED[0], {"input": "something else"}, RETRY) != first


@pytest.mark.parametrize("change", ["credential", "user", "route", "header"])
def test_requests_of_different_callers_never_join(user, other_user, start_and_disconnect, database, change):
    # Given a turn whose client has disconnected
    first = start_and_disconnect(*UNSTORED)
    wait_until(lambda: first in abandoned(database))

    # When the same body arrives with another credential, from another user, or for another purpose
    path, body, headers, caller = *UNSTORED, dict(RETRY), user
    if change == "credential":
        key = user.request("POST", "/v1/api_keys", json={"name": "a key"}).json()["key"]
        caller = _with_token(user, key)
    elif change == "user":
        caller = other_user
    elif change == "header":
        headers["x-sangha-events"] = "all"
    else:
        path, body = CHAT
    second = ClientRequest(caller, path, body, headers, stream=True)

    # Then it has a turn of its own
    assert second.answer.headers["x-sangha-job-id"] != first
    second.disconnect()


def _with_token(user, token):
    class Other:
        client, jobs = user.client, user.jobs

    Other.token = token
    return Other


def test_a_retry_does_not_join_a_turn_that_failed(user, database, start_and_disconnect):
    first = start_and_disconnect(*STORED)
    with database.connection() as connection:
        job = claim(connection, first, message_id="a message", worker="a worker")
    with database.transaction() as connection:
        end(connection, job, Ending("failed", []), [])

    assert start_and_disconnect(*STORED, RETRY) != first
