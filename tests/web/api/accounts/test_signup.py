"""Given the whole door, when people sign up and log in over HTTP, then they get tokens that open it."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from models.access import signing_keys
from models.platform.ids import new_id
from pipelines.accounts import passwords
from tests.waiting import eventually
from tests.web.api_client import assert_error
from web.access.hashing_pool import HashingPool
from web.app import THREADS, build

UNREACHABLE = "redis://127.0.0.1:1"


@pytest.fixture
def client(api):
    return api


@pytest.fixture
def person():
    return {"email": f"{new_id('test')}@example.com", "password": "correct horse"}


def test_signup_then_login_then_a_call(client, person):
    signup = client.post("/signup", json=person)
    login = client.post("/login", json=person)

    assert (signup.status_code, login.status_code) == (201, 200)
    assert signup.json()["user"] == {"id": login.json()["user"]["id"], "email": person["email"]}
    assert signup.json()["account"] == login.json()["account"]
    assert (login.json()["token_type"], login.json()["expires_in"]) == ("bearer", 900)
    assert login.json()["refresh_token"].startswith("rt_")
    assert login.headers["cache-control"] == "no-store"
    headers = {"authorization": f"Bearer {login.json()['token']}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_known_address_looks_like_an_unknown_one(client, person):
    unknown = client.post("/signup", json=person)
    known = client.post("/signup", json=person | {"password": "another horse"})
    again = client.post("/signup", json=person)

    assert unknown.status_code == known.status_code == again.status_code == 201
    assert list(unknown.json()) == list(known.json()) == list(again.json())
    assert unknown.json()["account"]["id"] == again.json()["account"]["id"] != known.json()["account"]["id"]


def test_wrong_credentials_look_alike(client, person):
    client.post("/signup", json=person)

    wrong = client.post("/login", json=person | {"password": "wrong horse"})
    unknown = client.post("/login", json=person | {"email": f"un{person['email']}"})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()


def test_too_many_guesses_are_told_when_to_come_again(client, person):
    client.post("/signup", json=person)
    answers = [client.post("/login", json=person | {"password": f"guess {n}"}) for n in range(11)]

    assert_error(answers[-1], 429, code="too_many_attempts")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 15


@pytest.mark.parametrize(("table", "part"), [("accounts", "account"), ("users", "user")])
def test_a_token_whose_account_or_user_is_gone_is_no_longer_valid(client, person, database, table, part):
    signup = client.post("/signup", json=person).json()
    with database.connection() as connection:
        connection.execute(f"DELETE FROM {table} WHERE id = %s", (signup[part]["id"],))

    headers = {"authorization": f"Bearer {signup['token']}"}
    response = client.post("/v1/responses", json={"model": "default", "input": "hello"}, headers=headers)

    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"email": "nonsense"}, "email"),
        ({"email": 5}, "email"),
        ({"email": f"{'a' * 400}@example.com"}, "email"),
        ({"email": "a@b.com\r\nlevel=CRITICAL all is lost"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "password1"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"password": "x" * 5000}, "password"),
        ({"password": None}, "password"),
        ({"account": "x"}, "account"),
        ({"user_id": "user_of_others"}, "user_id"),
        ({"email": "a\0@example.com"}, None),
    ],
)
def test_what_is_wrong_is_named(client, person, change, param):
    response = client.post("/signup", json=person | change)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_an_address_writes_nothing_into_the_log(client, person, caplog):
    caplog.set_level(logging.DEBUG)
    for email in ("a@b.com\r\nERROR forged", "a\u2028ERROR forged@b.com", "\x1b[2Jforged"):
        client.post("/login", json=person | {"email": email})

    assert "forged" not in caplog.text


def test_the_public_keys_are_public(client):
    *_, key = client.get("/.well-known/jwks.json").json()["keys"]

    assert (key["kty"], key["crv"], key["alg"], "d" in key) == ("OKP", "Ed25519", "Ed25519", False)


def test_a_new_generation_of_keys_logs_nobody_out(client, person, database, settings, serve):
    old = client.post("/signup", json=person).json()
    known = client.get("/.well-known/jwks.json").json()["keys"]
    with database.connection() as connection:
        signing_keys.rotate(connection)

    # Another process signs with the new key; the first one has not heard of it yet.
    new = serve(build(settings)).post("/login", json=person).json()

    for entry in (old, new):
        headers = {"authorization": f"Bearer {entry['token']}"}
        assert client.get("/v1/me/sessions", headers=headers).status_code == 200
    assert len(client.get("/.well-known/jwks.json").json()["keys"]) == len(known) + 1


def test_without_redis_nobody_logs_in_and_sessions_go_on(client, person, settings, serve):
    entry = client.post("/signup", json=person).json()
    alone = serve(build(settings.model_copy(update={"redis_url": UNREACHABLE})))

    assert alone.post("/login", json=person).status_code == 503
    again = alone.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]})
    assert again.status_code == 200, again.text


def test_a_flood_of_logins_holds_up_nobody_else(client, person, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(passwords, "verify", lambda stored, password: held.wait(10) and False)
    hashing = client.app.state.platform.hashing
    with ThreadPoolExecutor(THREADS + 8) as pool:
        people = [person | {"email": f"{number}{person['email']}"} for number in range(THREADS + 8)]
        logins = [pool.submit(client.post, "/login", json=somebody) for somebody in people]
        eventually(lambda: hashing.active >= THREADS)

        assert client.get("/.well-known/jwks.json").status_code == 200

        held.set()
        assert {login.result().status_code for login in logins} == {401}


def test_a_long_line_is_refused():
    async def crowd():
        hashing, refusals = HashingPool(threads=1, queue=2), []

        async def one():
            try:
                await hashing.run(lambda: time.sleep(0.01))
            except Exception as error:  # noqa: BLE001 - looked at below
                refusals.append(type(error).__name__)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
        return refusals

    assert anyio.run(crowd) == ["Unavailable"] * 2


def test_always_the_same_threads_hash():
    # Given a common pool of threads that is in use
    async def crowd():
        hashing, hashed, common = HashingPool(threads=2), set(), set()

        async def one():
            common.add(await anyio.to_thread.run_sync(lambda: time.sleep(0.001) or threading.get_ident()))
            hashed.add(await hashing.run(lambda: time.sleep(0.001) or threading.get_ident()))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
        return hashed, common

    # When many people log in
    hashed, common = anyio.run(crowd)

    # Then the memory of no other thread has held a hash
    assert len(hashed) <= 2
    assert hashed.isdisjoint(common)


def test_work_that_fails_says_so_to_who_waits():
    def fail():
        raise ValueError("no such password")

    with pytest.raises(ValueError, match="no such password"):
        anyio.run(HashingPool().run, fail)
