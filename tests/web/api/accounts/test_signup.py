"""`/signup`, `/login` and the public keys."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.harness.waiting import wait_until
from models.access import signing_keys
from models.platform.ids import new_id
from pipelines.accounts import passwords
from tests.web.api_client import assert_error
from web.app import build
from web.http.threads import THREADS

UNREACHABLE = "redis://127.0.0.1:1"


@pytest.fixture
def client(api):
    return api


@pytest.fixture
def credentials():
    return {"email": f"{new_id('test')}@example.com", "password": "correct horse"}


def test_signup_and_login_return_a_valid_token(client, credentials):
    signup = client.post("/signup", json=credentials)
    login = client.post("/login", json=credentials)

    assert (signup.status_code, login.status_code) == (201, 200)
    assert signup.json()["user"] == {"id": login.json()["user"]["id"], "email": credentials["email"]}
    assert signup.json()["account"] == login.json()["account"]
    assert (login.json()["token_type"], login.json()["expires_in"]) == ("bearer", 900)
    assert login.json()["refresh_token"].startswith("rt_")
    assert login.headers["cache-control"] == "no-store"
    headers = {"authorization": f"Bearer {login.json()['token']}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_signup_does_not_reveal_whether_an_address_is_known(client, credentials):
    unknown = client.post("/signup", json=credentials)
    known = client.post("/signup", json=credentials | {"password": "another horse"})
    repeated = client.post("/signup", json=credentials)

    assert unknown.status_code == known.status_code == repeated.status_code == 201
    assert list(unknown.json()) == list(known.json()) == list(repeated.json())
    assert unknown.json()["account"]["id"] == repeated.json()["account"]["id"] != known.json()["account"]["id"]


def test_login_does_not_reveal_whether_an_address_is_known(client, credentials):
    client.post("/signup", json=credentials)

    wrong = client.post("/login", json=credentials | {"password": "wrong horse"})
    unknown = client.post("/login", json=credentials | {"email": f"un{credentials['email']}"})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()


def test_too_many_login_attempts_get_a_retry_after(client, credentials):
    client.post("/signup", json=credentials)
    answers = [client.post("/login", json=credentials | {"password": f"guess {n}"}) for n in range(11)]

    assert_error(answers[-1], 429, code="too_many_attempts")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 15


@pytest.mark.parametrize(("table", "field"), [("accounts", "account"), ("users", "user")])
def test_a_token_of_a_deleted_account_or_user_is_rejected(client, credentials, database, table, field):
    signup = client.post("/signup", json=credentials).json()
    with database.connection() as connection:
        connection.execute(f"DELETE FROM {table} WHERE id = %s", (signup[field]["id"],))

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
def test_invalid_input_is_rejected_by_parameter(client, credentials, change, param):
    response = client.post("/signup", json=credentials | change)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_an_email_address_cannot_forge_log_lines(client, credentials, caplog):
    caplog.set_level(logging.DEBUG)
    for email in ("a@b.com\r\nERROR forged", "a\u2028ERROR forged@b.com", "\x1b[2Jforged"):
        client.post("/login", json=credentials | {"email": email})

    assert "forged" not in caplog.text


def test_the_public_signing_keys_are_published(client):
    *_, key = client.get("/.well-known/jwks.json").json()["keys"]

    assert (key["kty"], key["crv"], key["alg"], "d" in key) == ("OKP", "Ed25519", "Ed25519", False)


def test_signing_key_rotation_keeps_existing_sessions_valid(client, credentials, database, settings, serve):
    old = client.post("/signup", json=credentials).json()
    known = client.get("/.well-known/jwks.json").json()["keys"]
    with database.connection() as connection:
        signing_keys.rotate(connection)

    # Another process signs with the new key, which the first one has not loaded yet.
    new = serve(build(settings)).post("/login", json=credentials).json()

    for tokens in (old, new):
        headers = {"authorization": f"Bearer {tokens['token']}"}
        assert client.get("/v1/me/sessions", headers=headers).status_code == 200
    assert len(client.get("/.well-known/jwks.json").json()["keys"]) == len(known) + 1


def test_without_redis_login_fails_and_refresh_works(client, credentials, settings, serve):
    tokens = client.post("/signup", json=credentials).json()
    without_redis = serve(build(settings.model_copy(update={"redis_url": UNREACHABLE})))

    assert without_redis.post("/login", json=credentials).status_code == 503
    repeated = without_redis.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert repeated.status_code == 200, repeated.text


def test_a_flood_of_logins_does_not_block_other_requests(client, credentials, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(passwords, "verify", lambda stored, password: release.wait(10) and False)
    hashing = client.app.state.platform.hashing
    with ThreadPoolExecutor(THREADS + 8) as pool:
        all_credentials = [credentials | {"email": f"{number}{credentials['email']}"} for number in range(THREADS + 8)]
        logins = [pool.submit(client.post, "/login", json=body) for body in all_credentials]
        wait_until(lambda: hashing.active >= THREADS)

        assert client.get("/.well-known/jwks.json").status_code == 200

        release.set()
        assert {login.result().status_code for login in logins} == {401}
