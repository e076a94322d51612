"""Repeats of creating requests under one Idempotency-Key."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import httpx
import orjson
import pytest
from openai import OpenAI
from psycopg.errors import UniqueViolation
from starlette.responses import Response

from bench.harness.waiting import wait_until
from models.access import idempotency
from models.journal import journal
from models.journal.archive import archive
from models.journal.events import event
from models.journal.journal import Claim
from models.platform.ids import new_id
from models.platform.secrets import Cipher
from tests.web.api_client import assert_error
from web.access import idempotency as http_idempotency
from web.access.idempotency import Idempotency, KeyedRequest
from web.access.rights import Rights
from web.api.routing import Route, mount

TURN = {"input": "hello", "background": True}


@pytest.fixture
def key():
    return new_id("key")


@pytest.fixture
def post(user, key):
    """`post(path, **body)` sends a POST with the test's key."""

    def post(path="/v1/responses", key=key, **body):
        return user.request("POST", path, json=body or TURN, headers={"Idempotency-Key": key})

    return post


@pytest.fixture
def rows(user, database):
    """`rows("jobs")` → the number of rows of the user's account."""

    def rows(table):
        with database.connection() as connection:
            statement = f"SELECT count(*) AS count FROM {table} WHERE account_id = %s"
            return connection.execute(statement, (user.caller.account_id,)).fetchone()["count"]

    return rows


def test_concurrent_repeats_create_one_turn_and_get_one_response(post, rows):
    with ThreadPoolExecutor(20) as pool:
        responses = [future.result() for future in [pool.submit(post) for _ in range(20)]]

    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 1
    assert rows("jobs") == rows("responses") == 1


@pytest.mark.parametrize("if_busy", ["reject", "interrupt"])
def test_a_repeat_does_not_count_as_another_turn_of_the_conversation(post, user, rows, if_busy):
    conversation = user.request("POST", "/v1/conversations").json()["id"]
    body = {**TURN, "conversation": conversation, "if_busy": if_busy}
    with ThreadPoolExecutor(8) as pool:
        responses = [future.result() for future in [pool.submit(post, **body) for _ in range(8)]]

    assert len({response.content for response in responses}) == 1, [response.text for response in responses]
    assert user.request("GET", f"/v1/responses/{responses[0].json()['id']}").json()["status"] == "queued"
    assert rows("jobs") == 1


def test_concurrent_repeats_create_one_conversation(post, rows):
    with ThreadPoolExecutor(20) as pool:
        body = {"metadata": {"a": "b"}}
        responses = [future.result() for future in [pool.submit(post, "/v1/conversations", **body) for _ in range(20)]]

    assert len({response.content for response in responses}) == 1
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 1
    assert rows("conversations") == 1


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/responses", {**TURN, "input": "other"}), ("/v1/conversations", {"metadata": {}})]
)
def test_another_request_under_the_key_is_rejected(post, path, body):
    post()

    response = post(path, **body)

    assert_error(response, 422, code="idempotency_key_reused", param="Idempotency-Key")


def test_accounts_can_use_the_same_key(post, other_user, key):
    mine = post().json()
    theirs = other_user.request("POST", "/v1/responses", json=TURN, headers={"Idempotency-Key": key})

    assert theirs.json()["id"] != mine["id"]
    assert "idempotent-replayed" not in theirs.headers


@pytest.mark.parametrize("value", ["", "a b", "x" * 256, "ké"])
def test_malformed_keys_are_rejected(user, value):
    response = user.request("POST", "/v1/responses", json=TURN, headers={"Idempotency-Key": value.encode()})

    assert_error(response, 400, param="Idempotency-Key")


def test_a_rejected_request_does_not_use_its_key_up(post, rows):
    assert_error(post(input=5), 400)

    assert post().status_code == 200
    assert rows("idempotency_keys") == 1


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/conversations"])
def test_a_repeat_after_a_crash_finds_what_was_created(post, rows, path, user, monkeypatch):
    """The crash between creating and responding is an exception here."""
    body = TURN if path == "/v1/responses" else {"metadata": {"a": "b"}}
    with monkeypatch.context() as crash:
        crash.setattr(user.client.app.state.platform.queue, "announce_job", None)
        crash.setattr("web.api.turns.conversations._conversation_object", None)
        assert post(path, **body).status_code == 500

    repeat = post(path, **body)

    assert repeat.status_code == 200
    assert repeat.headers["idempotent-replayed"] == "true"
    assert rows("responses" if path == "/v1/responses" else "conversations") == 1
    assert user.request("GET", f"{path}/{repeat.json()['id']}").status_code == 200
    assert post(path, **body).content == repeat.content


def test_a_repeat_waits_for_a_held_reservation_and_takes_over_an_expired_one(post, user, database, key, monkeypatch):
    monkeypatch.setattr(http_idempotency, "LONGEST_WAIT", 0.05)
    body = {"metadata": {"a": "b"}}
    first = post("/v1/conversations", **body)
    with database.connection() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET status = NULL, body = NULL, locked_until = now() + interval '1 hour'"
            " WHERE account_id = %s",
            (user.caller.account_id,),
        )
    waited = post("/v1/conversations", **body)
    with database.connection() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET locked_until = now() WHERE account_id = %s", (user.caller.account_id,)
        )
    taken_over = post("/v1/conversations", **body)

    assert_error(waited, 409, code="idempotency_key_in_flight")
    assert (waited.headers["x-should-retry"], waited.headers["retry-after"]) == ("true", "1")
    assert taken_over.json() == first.json()


def test_a_repeat_does_not_recreate_a_deleted_turn(post, user, database, rows):
    turn = post().json()
    user.request("POST", f"/v1/responses/{turn['id']}/cancel")
    assert user.request("DELETE", f"/v1/responses/{turn['id']}").status_code == 200

    assert_error(post(), 404)
    assert rows("responses") == 0


def test_a_repeat_of_a_stream_begins_with_its_first_event(post, user, database):
    job_id = post(input="x", background=True).headers["x-sangha-job-id"]
    ended = [event(2, "response.completed", {"response": {"id": "resp_x", "output": []}})]
    with database.transaction() as connection:
        archive(connection, job_id, ended)
        connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (job_id,))
    followed = user.request("GET", f"/v1/jobs/{job_id}/events").text
    key = new_id("key")
    with (
        user.client.stream(
            "POST",
            "/v1/responses",
            json={"input": "x", "stream": True},
            headers={"authorization": f"Bearer {user.token}", "idempotency-key": key},
        ) as first,
        user.client.stream(
            "POST",
            "/v1/responses",
            json={"input": "x", "stream": True},
            headers={"authorization": f"Bearer {user.token}", "idempotency-key": key},
        ) as second,
    ):
        heads = [list(itertools.islice(stream.iter_lines(), 7)) for stream in (first, second)]

    assert followed.startswith("id: 0")
    assert heads[0] == heads[1]
    assert orjson.loads(heads[0][2].removeprefix("data: "))["type"] == "response.created"
    assert (first.headers.get("idempotent-replayed"), second.headers["idempotent-replayed"]) == (None, "true")


def test_concurrent_repeats_wait_for_the_end_of_the_turn_and_get_the_same_response(
    post, rows, user, database, redis_client
):
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(post, input="hello") for _ in range(3)]
        wait_until(lambda: rows("responses") == 1)
        with database.transaction() as connection:
            (turn,) = connection.execute(
                "SELECT id, job_id FROM responses WHERE account_id = %s", (user.caller.account_id,)
            ).fetchall()
            end = event(2, "response.completed", {"response": {"id": turn["id"], "status": "completed"}})
            archive(connection, turn["job_id"], [end])
            connection.execute("UPDATE jobs SET state = 'completed' WHERE id = %s", (turn["job_id"],))
        journal.append(redis_client, Claim(turn["job_id"], 1), [end])
        responses = [response.result() for response in waiting]
    responses.append(post(input="hello"))

    assert {response.text for response in responses} == {responses[0].text}
    assert sum("idempotent-replayed" not in response.headers for response in responses) == 1


def test_the_official_client_sends_a_key(user, key, rows):
    client = OpenAI(api_key=user.token, base_url=f"{user.client.base_url}/v1")

    created = [
        client.responses.create(input="hello", background=True, extra_headers={"Idempotency-Key": key})
        for _ in range(2)
    ]

    assert created[0].id == created[1].id
    assert rows("jobs") == 1


def test_stored_responses_are_encrypted(post, user, database):
    post("/v1/conversations", metadata={"name": "a secret of mine"})

    with database.connection() as connection:
        (row,) = connection.execute(
            "SELECT * FROM idempotency_keys WHERE account_id = %s", (user.caller.account_id,)
        ).fetchall()
    assert b"secret" not in row["body"]


def test_a_repeat_whose_response_is_lost_is_a_permanent_conflict(api, user, key, monkeypatch):
    body = orjson.dumps({"metadata": {}})
    resource = next(route.endpoint for route in api.app.routes if route.path == "/v1/conversations")
    monkeypatch.setitem(
        resource.routes, "POST", Route("POST", "/v1/conversations", violate_uniqueness, Rights.WRITE, creates=True)
    )

    def post():
        return user.request("POST", "/v1/conversations", content=body, headers={"idempotency-key": key})

    first, second = post(), post()

    assert first.status_code == 500
    assert_error(second, 409, code="idempotency_answer_lost")
    assert second.headers["x-should-retry"] == "false"


def violate_uniqueness(request):
    raise UniqueViolation


def test_old_keys_are_deleted(post, user, database, rows):
    post()
    post(key=new_id("key"))
    with database.connection() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE account_id = %s AND key ="
            " (SELECT min(key) FROM idempotency_keys WHERE account_id = %s)",
            (user.caller.account_id,) * 2,
        )
        assert idempotency.prune(connection, 500) >= 1

    assert rows("idempotency_keys") == 1


def test_a_creating_stream_must_handle_repeats():
    with pytest.raises(ValueError, match="repeats"):
        mount([Route("POST", "/streams", violate_uniqueness, Rights.WRITE, creates=True, streams=True)])


def test_a_public_route_cannot_honour_keys():
    with pytest.raises(ValueError, match="account"):
        mount([Route("POST", "/signup", violate_uniqueness, Rights.PUBLIC, creates=True)])


def test_a_key_on_a_route_that_creates_nothing_is_ignored(user, key):
    for _ in range(2):
        response: httpx.Response = user.request("GET", "/v1/models", headers={"idempotency-key": key})
        assert "idempotent-replayed" not in response.headers


def test_a_response_that_the_endpoint_restores_is_not_stored(database, account, key):
    # Given an endpoint that restores its response
    requests, runs = Idempotency(database, Cipher(b"k" * 32, "test")), []
    request = KeyedRequest(account, "user_a", key, b"a fingerprint", "req")

    async def run(ids, prior_use):
        runs.append(prior_use)
        return Response(b"the text", 201)

    # When a request is repeated
    async def repeat():
        return [await requests.respond(request, run, handles_repeats=False, stores=False) for _ in range(3)]

    responses = asyncio.run(repeat())

    # Then the endpoint learns that it was answered, at once, and nothing is stored
    assert runs == ["first", "answered", "answered"]
    assert ["idempotent-replayed" in response.headers for response in responses] == [False, True, True]
    with database.connection() as connection:
        row = connection.execute("SELECT body, status FROM idempotency_keys WHERE key = %s", (key,)).fetchone()
    assert row == {"body": None, "status": 200}
