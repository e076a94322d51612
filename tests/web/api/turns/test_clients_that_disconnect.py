"""Turns whose client disconnects: which continue, and which are cancelled after the grace."""

import threading
from contextlib import suppress

import httpx
import pytest

from bench.harness.waiting import wait_until
from models.turns import abandoned_turns, web_processes
from tests.web.api.turns.client_requests import CHAT, STORED, UNSTORED, ClientRequest, abandoned, state, turns_of
from tests.web.api_client import ApiUser, app_client


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
