"""`/auth` and `/v1/me/sessions`: refreshing, listing and ending sessions, and changing passwords."""

import pytest

from models.platform.ids import new_id
from models.platform.secrets import hash_secret
from tests.web.api_client import assert_error

PASSWORD = "correct horse"


@pytest.fixture
def credentials():
    return {"email": f"{new_id('test')}@example.com", "password": PASSWORD}


@pytest.fixture
def tokens(api, credentials):
    return api.post("/signup", json=credentials).json()


def bearer(tokens):
    return {"authorization": f"Bearer {tokens['token']}"}


def test_a_refresh_returns_new_tokens_and_a_reused_refresh_token_ends_the_session(api, tokens, database):
    answer = api.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert list(answer.json()) == list(tokens)
    assert api.get("/v1/models", headers=bearer(answer.json())).status_code == 200

    again = api.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert (again.status_code, again.json()["refresh_token"]) == (200, answer.json()["refresh_token"])

    with database.connection() as connection:
        connection.execute(
            "UPDATE refresh_tokens SET used_at = used_at - interval '11 seconds' WHERE hash = %s",
            (hash_secret(tokens["refresh_token"]),),
        )
    reused = api.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert_error(reused, 401, code="invalid_refresh_token")
    for ended in (tokens, answer.json()):
        assert_error(api.get("/v1/models", headers=bearer(ended)), 401)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "refresh_token"),
        ({"refresh_token": "x" * 201}, 400, "refresh_token"),
        ({"refresh_token": "rt_unknown", "user": "user_of_others"}, 400, "user"),
        ({"refresh_token": "rt_unknown"}, 401, None),
    ],
)
def test_an_invalid_refresh_is_rejected_by_parameter(api, body, status, param):
    assert_error(api.post("/auth/refresh", json=body), status, param=param)


def test_a_refresh_into_an_account_of_others_is_rejected(api, tokens, other_user):
    body = {"refresh_token": tokens["refresh_token"], "account": other_user.caller.account_id}

    assert_error(api.post("/auth/refresh", json=body), 403, param="account", code="not_a_member")


def test_access_and_refresh_tokens_are_not_interchangeable(api, tokens):
    assert_error(api.post("/auth/refresh", json={"refresh_token": tokens["token"][:200]}), 401)
    assert_error(api.get("/v1/models", headers={"authorization": f"Bearer {tokens['refresh_token']}"}), 401)


def test_logout_ends_only_this_session(api, credentials, tokens):
    other = api.post("/login", json=credentials).json()

    answer = api.post("/auth/logout", headers=bearer(tokens))

    assert (answer.status_code, answer.json()["object"]) == (200, "session.deleted")
    assert_error(api.get("/v1/models", headers=bearer(tokens)), 401)
    assert_error(api.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}), 401)
    assert api.get("/v1/models", headers=bearer(other)).status_code == 200


def test_sessions_are_listed_in_pages_and_ended_one_by_one(api, credentials, tokens):
    others = [api.post("/login", json=credentials, headers={"user-agent": f"agent {n}"}).json() for n in range(2)]

    first = api.get("/v1/me/sessions", params={"limit": 2}, headers=bearer(tokens)).json()
    rest = api.get("/v1/me/sessions", params={"after": first["last_id"]}, headers=bearer(tokens)).json()

    assert [item["user_agent"] for item in first["data"]] == ["agent 1", "agent 0"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    (current,) = rest["data"]
    assert (current["current"], current["ip"]) == (True, "127.0.0.1")
    assert not any(item["current"] for item in first["data"])

    path = f"/v1/me/sessions/{first['data'][0]['id']}"
    assert api.delete(path, headers=bearer(tokens)).json()["deleted"] is True
    assert_error(api.get("/v1/models", headers=bearer(others[1])), 401)
    assert_error(api.delete(path, headers=bearer(tokens)), 404, param="session_id")


def test_sessions_of_others_are_neither_listed_nor_ended(user, other_user):
    sessions = other_user.request("GET", "/v1/me/sessions").json()

    assert [item["id"] for item in sessions["data"]] == [other_user.caller.session_id]
    assert_error(other_user.request("DELETE", f"/v1/me/sessions/{user.caller.session_id}"), 404)
    assert user.request("GET", "/v1/models").status_code == 200


def test_logout_all_ends_every_session(api, credentials, tokens):
    other = api.post("/login", json=credentials).json()

    answer = api.post("/auth/logout_all", headers=bearer(tokens))

    assert answer.json() == {"object": "sessions.deleted", "deleted": 2}
    for ended in (tokens, other):
        assert_error(api.get("/v1/models", headers=bearer(ended)), 401)


def test_changing_the_password_needs_the_current_one_and_ends_other_sessions(api, credentials, tokens):
    other = api.post("/login", json=credentials).json()
    body = {"current_password": PASSWORD, "new_password": "a newer horse"}

    def change_password(**overrides):
        return api.post("/auth/password/change", json=body | overrides, headers=bearer(tokens))

    assert_error(
        change_password(current_password="wrong horse"), 403, param="current_password", code="invalid_credentials"
    )
    assert_error(change_password(new_password="password1"), 400, param="new_password", code="invalid_password")
    assert_error(change_password(new_password=credentials["email"]), 400, param="new_password")
    assert change_password().json() == {"object": "sessions.deleted", "deleted": 1}

    assert_error(api.get("/v1/models", headers=bearer(other)), 401)
    assert api.get("/v1/models", headers=bearer(tokens)).status_code == 200
    assert_error(api.post("/login", json=credentials), 401)
    assert api.post("/login", json=credentials | {"password": "a newer horse"}).status_code == 200
