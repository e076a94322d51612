"""Turns whose client disconnects: which continue, which are cancelled after the grace, and which requests join them."""

import threading
from contextlib import suppress

import httpx
import pytest

from bench.harness.waiting import wait_until
from models.access.original_requests import DISCONNECTED
from models.jobs.attempts import Ending, claim, end
from models.turns import abandoned_turns, web_processes
from tests.web.api_client import ApiUser, app_client
from web.access.retries import RETRY_COUNT

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]})
UNSTORED = ("/v1/responses", {"input": "hello", "store": False})
STORED = ("/v1/responses", {"input": "hello"})
RETRY = {RETRY_COUNT: "1"}


class ClientRequest:
    """A request whose client disconnects when `disconnect` is called."""

    def __init__(self, user, path, body, headers=None, *, stream=False):
        self.answer = httpx.Response(0)
        self._client = httpx.Client(base_url=user.client.base_url, timeout=httpx.Timeout(20, read=0.5))
        sent = {"authorization": f"Bearer {user.token}", **(headers or {})}
        if stream:
            request = self._client.build_request("POST", path, json={**body, "stream": True}, headers=sent)
            self.answer = self._client.send(request, stream=True)
            assert self.answer.status_code == 200
            self._lines = self.answer.iter_lines()  # a dropped iterator would close the connection
            next(self._lines)
        else:
            with pytest.raises(httpx.ReadTimeout):  # the client gives up
                self._client.post(path, json=body, headers=sent)

    def disconnect(self):
        self.answer.close()
        self._client.close()


def turns_of(user):
    return [job for job in user.jobs() if job["kind"] == "turn.run"]


def abandoned(database):
    with database.connection() as connection:
        return set(abandoned_turns.list_abandoned(connection))


@pytest.fixture
def start_and_disconnect(user):
    """`start_and_disconnect(path, body, …)` → the id of a new turn whose client has disconnected."""

    def start_and_disconnect(path, body, headers=None, *, stream=False):
        known = {job["id"] for job in turns_of(user)}
        ClientRequest(user, path, body, headers, stream=stream).disconnect()
        (job_id,) = {job["id"] for job in turns_of(user)} - known
        return job_id

    return start_and_disconnect


def set_state(database, request, state):
    with database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = %s WHERE id = %s", (state, request.answer.headers["x-sangha-job-id"])
        )


def disconnects_in(redis_client):
    """Return the number of original requests whose client has disconnected."""
    keys = redis_client.keys("sangha:requests:*")
    return sum(entry.startswith(DISCONNECTED) for key in keys for entry in redis_client.lrange(key, 0, -1))


def state(user, job_id):
    return user.request("GET", f"/v1/jobs/{job_id}").json()["state"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("request_", [CHAT, UNSTORED])
def test_an_unreadable_turn_is_cancelled_some_seconds_after_its_client_disconnected(
    user, database, start_and_disconnect, end_grace, request_, stream
):
    # Given a client that disconnects while its turn waits in the queue
    job_id = start_and_disconnect(*request_, stream=stream)

    # When it has disconnected, the turn still waits
    wait_until(lambda: job_id in abandoned(database))
    assert state(user, job_id) == "queued"

    # Then it is cancelled when the grace is over
    end_grace()
    assert state(user, job_id) == "cancelled"
    assert job_id not in abandoned(database)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (*STORED, {}),
        (CHAT[0], {**CHAT[1], "store": True}, {}),
        (*CHAT, {"idempotency-key": "a-key"}),
        (*UNSTORED, {"x-sangha-on-disconnect": "finish"}),
    ],
)
def test_a_turn_that_can_be_read_later_or_has_to_finish_goes_on(
    user, database, start_and_disconnect, end_grace, path, body, headers
):
    job_id = start_and_disconnect(path, body, headers)
    marker = start_and_disconnect(*CHAT)  # its client disconnected later
    wait_until(lambda: marker in abandoned(database))

    end_grace()

    assert (state(user, job_id), state(user, marker)) == ("queued", "cancelled")


def test_a_turn_of_a_conversation_goes_on_since_its_items_are_kept(user, database, start_and_disconnect, end_grace):
    conversation = user.request("POST", "/v1/conversations", json={}).json()["id"]
    job_id = start_and_disconnect("/v1/responses", {"input": "hello", "store": False, "conversation": conversation})
    marker = start_and_disconnect(*CHAT)
    wait_until(lambda: marker in abandoned(database))

    end_grace()

    assert state(user, job_id) == "queued"


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


def test_a_reader_keeps_an_abandoned_response(user, database, start_and_disconnect, end_grace):
    job_id = start_and_disconnect(*UNSTORED)
    wait_until(lambda: job_id in abandoned(database))
    with database.connection() as connection:
        (row,) = connection.execute("SELECT id FROM responses WHERE job_id = %s", (job_id,)).fetchall()

    # When a client reads the response by its id
    assert user.request("GET", f"/v1/responses/{row['id']}").status_code == 200
    end_grace()

    # Then it goes on
    assert state(user, job_id) == "queued"


def test_a_late_notice_of_a_disconnect_does_not_cancel_a_turn_that_is_followed(user, database, end_grace):
    # Given a client that follows a turn from which another connection was closed
    followed = ClientRequest(user, *CHAT, stream=True)
    job_id = followed.answer.headers["x-sangha-job-id"]
    with database.connection() as connection:
        abandoned_turns.abandon(connection, [job_id], user.caller.account_id)

    # When the web process looks
    wait_until(lambda: job_id not in abandoned(database))
    end_grace()

    # Then the turn goes on
    assert state(user, job_id) == "queued"
    followed.disconnect()


def kill_process_of(database, job_id):
    """Let the lease of a turn's web process expire, and run that part of the scheduler."""
    with database.transaction() as connection:
        connection.execute("UPDATE web_processes SET seen_at = now() - interval '1 minute' WHERE name ="
                           " (SELECT arguments ->> 'web_process' FROM jobs WHERE id = %s)", (job_id,))  # fmt: skip
        return web_processes.abandon_turns_of_dead(connection)


def test_the_unreadable_turns_of_a_killed_web_process_are_abandoned(user, database):
    # Given turns of connected clients, of which one can be read later
    unreadable, stored = (ClientRequest(user, *request, stream=True) for request in (CHAT, STORED))
    job_ids = [request.answer.headers["x-sangha-job-id"] for request in (unreadable, stored)]

    # When the lease of their web process has expired
    assert len(kill_process_of(database, job_ids[0])) == 1

    # Then only the other one is abandoned, and the process, which lives, keeps it for its client
    assert abandoned(database) & {*job_ids} == {job_ids[0]}
    wait_until(lambda: job_ids[0] not in abandoned(database))
    unreadable.disconnect(), stored.disconnect()


def test_turns_that_have_to_finish_name_no_web_process(user, database):
    finish = ClientRequest(user, *CHAT, {"x-sangha-on-disconnect": "finish"}, stream=True)
    keyed = ClientRequest(user, *CHAT, {"idempotency-key": "a-key"}, stream=True)
    cancelled = ClientRequest(user, *STORED, {"x-sangha-on-disconnect": "cancel"}, stream=True)

    with database.connection() as connection:
        rows = connection.execute(
            "SELECT id, arguments ? 'web_process' AS named FROM jobs WHERE account_id = %s", (user.caller.account_id,)
        ).fetchall()
    named = {row["id"] for row in rows if row["named"]}
    assert named == {cancelled.answer.headers["x-sangha-job-id"]}
    finish.disconnect(), keyed.disconnect(), cancelled.disconnect()


@pytest.mark.parametrize("stream", [True, False])
def test_a_web_process_that_stops_abandons_nothing(settings, database, stream):
    # Given an unstored turn with a client
    with app_client(settings) as client:
        user = ApiUser(client, database)
        body = {**CHAT[1], "stream": stream}
        headers = {"authorization": f"Bearer {user.token}"}

        def ask():
            with suppress(httpx.HTTPError):
                client.post(CHAT[0], json=body, headers=headers)

        request = threading.Thread(target=ask)
        request.start()
        (job,) = wait_until(lambda: turns_of(user))
        # When the process is asked to stop
    request.join(20)

    # Then the turn is not abandoned
    assert job["id"] not in abandoned(database)
    user.delete_account()
