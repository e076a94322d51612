"""Given somebody who has logged in, when the session goes on, is looked at and ends, then its tokens follow it."""

import pytest

from models.platform.ids import new_id
from tests.web.api_client import assert_error

PASSWORD = "correct horse"


@pytest.fixture
def person():
    return {"email": f"{new_id('test')}@example.com", "password": PASSWORD}


@pytest.fixture
def entry(api, person):
    return api.post("/signup", json=person).json()


def bearing(entry):
    return {"authorization": f"Bearer {entry['token']}"}


def test_a_refresh_gives_new_tokens_and_the_old_one_is_spent(api, entry):
    answer = api.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]})

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert list(answer.json()) == list(entry)
    assert api.get("/v1/models", headers=bearing(answer.json())).status_code == 200

    again = api.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]})
    assert_error(again, 401, code="invalid_refresh_token")
    for tokens in (entry, answer.json()):
        assert_error(api.get("/v1/models", headers=bearing(tokens)), 401)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "refresh_token"),
        ({"refresh_token": "x" * 201}, 400, "refresh_token"),
        ({"refresh_token": "rt_unknown", "user": "user_of_others"}, 400, "user"),
        ({"refresh_token": "rt_unknown"}, 401, None),
    ],
)
def test_what_is_wrong_with_a_refresh_is_named(api, body, status, param):
    assert_error(api.post("/auth/refresh", json=body), status, param=param)


def test_no_refresh_into_an_account_of_others(api, entry, other_user):
    body = {"refresh_token": entry["refresh_token"], "account": other_user.caller.account_id}

    assert_error(api.post("/auth/refresh", json=body), 403, param="account", code="not_a_member")


def test_a_token_is_no_refresh_token_and_the_other_way_round(api, entry):
    assert_error(api.post("/auth/refresh", json={"refresh_token": entry["token"][:200]}), 401)
    assert_error(api.get("/v1/models", headers={"authorization": f"Bearer {entry['refresh_token']}"}), 401)


def test_logging_out_ends_this_session_at_once(api, person, entry):
    other = api.post("/login", json=person).json()

    answer = api.post("/auth/logout", headers=bearing(entry))

    assert (answer.status_code, answer.json()["object"]) == (200, "session.deleted")
    assert_error(api.get("/v1/models", headers=bearing(entry)), 401)
    assert_error(api.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]}), 401)
    assert api.get("/v1/models", headers=bearing(other)).status_code == 200


def test_sessions_are_listed_page_by_page_and_end_one_by_one(api, person, entry):
    others = [api.post("/login", json=person, headers={"user-agent": f"agent {n}"}).json() for n in range(2)]

    first = api.get("/v1/me/sessions", params={"limit": 2}, headers=bearing(entry)).json()
    rest = api.get("/v1/me/sessions", params={"after": first["last_id"]}, headers=bearing(entry)).json()

    assert [item["user_agent"] for item in first["data"]] == ["agent 1", "agent 0"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    (mine,) = rest["data"]
    assert (mine["current"], mine["ip"]) == (True, "127.0.0.1")
    assert not any(item["current"] for item in first["data"])

    path = f"/v1/me/sessions/{first['data'][0]['id']}"
    assert api.delete(path, headers=bearing(entry)).json()["deleted"] is True
    assert_error(api.get("/v1/models", headers=bearing(others[1])), 401)
    assert_error(api.delete(path, headers=bearing(entry)), 404, param="session_id")


def test_nobody_sees_or_ends_the_sessions_of_others(user, other_user):
    seen = other_user.request("GET", "/v1/me/sessions").json()

    assert [item["id"] for item in seen["data"]] == [other_user.caller.session_id]
    assert_error(other_user.request("DELETE", f"/v1/me/sessions/{user.caller.session_id}"), 404)
    assert user.request("GET", "/v1/models").status_code == 200


def test_logging_out_everywhere_ends_all(api, person, entry):
    other = api.post("/login", json=person).json()

    answer = api.post("/auth/logout_all", headers=bearing(entry))

    assert answer.json() == {"object": "sessions.deleted", "deleted": 2}
    for tokens in (entry, other):
        assert_error(api.get("/v1/models", headers=bearing(tokens)), 401)


def test_a_password_is_changed_by_who_knows_it(api, person, entry):
    other = api.post("/login", json=person).json()
    change = {"current_password": PASSWORD, "new_password": "a newer horse"}

    def ask(**changes):
        return api.post("/auth/password/change", json=change | changes, headers=bearing(entry))

    assert_error(ask(current_password="wrong horse"), 403, param="current_password", code="invalid_credentials")
    assert_error(ask(new_password="password1"), 400, param="new_password", code="invalid_password")
    assert_error(ask(new_password=person["email"]), 400, param="new_password")
    assert ask().json() == {"object": "sessions.deleted", "deleted": 1}

    assert_error(api.get("/v1/models", headers=bearing(other)), 401)
    assert api.get("/v1/models", headers=bearing(entry)).status_code == 200
    assert_error(api.post("/login", json=person), 401)
    assert api.post("/login", json=person | {"password": "a newer horse"}).status_code == 200
