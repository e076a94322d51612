"""Given somebody who has logged in, when the session goes on, is looked at and ends, then its tokens follow it."""

import pytest

from models.ids import new_id
from tests.web.visiting import refused

PASSWORD = "correct horse"


@pytest.fixture
def person():
    return {"email": f"{new_id('test')}@example.com", "password": PASSWORD}


@pytest.fixture
def entry(house, person):
    return house.post("/signup", json=person).json()


def bearing(entry):
    return {"authorization": f"Bearer {entry['token']}"}


def test_a_refresh_gives_new_tokens_and_the_old_one_is_spent(house, entry):
    answer = house.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]})

    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert list(answer.json()) == list(entry)
    assert house.get("/v1/models", headers=bearing(answer.json())).status_code == 200

    again = house.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]})
    refused(again, 401, code="invalid_refresh_token")
    for tokens in (entry, answer.json()):
        refused(house.get("/v1/models", headers=bearing(tokens)), 401)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "refresh_token"),
        ({"refresh_token": "x" * 201}, 400, "refresh_token"),
        ({"refresh_token": "rt_unknown", "user": "user_of_others"}, 400, "user"),
        ({"refresh_token": "rt_unknown"}, 401, None),
    ],
)
def test_what_is_wrong_with_a_refresh_is_named(house, body, status, param):
    refused(house.post("/auth/refresh", json=body), status, param=param)


def test_no_refresh_into_an_account_of_others(house, entry, stranger):
    body = {"refresh_token": entry["refresh_token"], "account": stranger.caller.account_id}

    refused(house.post("/auth/refresh", json=body), 403, param="account", code="not_a_member")


def test_a_token_is_no_refresh_token_and_the_other_way_round(house, entry):
    refused(house.post("/auth/refresh", json={"refresh_token": entry["token"][:200]}), 401)
    refused(house.get("/v1/models", headers={"authorization": f"Bearer {entry['refresh_token']}"}), 401)


def test_logging_out_ends_this_session_at_once(house, person, entry):
    other = house.post("/login", json=person).json()

    answer = house.post("/auth/logout", headers=bearing(entry))

    assert (answer.status_code, answer.json()["object"]) == (200, "session.deleted")
    refused(house.get("/v1/models", headers=bearing(entry)), 401)
    refused(house.post("/auth/refresh", json={"refresh_token": entry["refresh_token"]}), 401)
    assert house.get("/v1/models", headers=bearing(other)).status_code == 200


def test_sessions_are_listed_page_by_page_and_end_one_by_one(house, person, entry):
    others = [house.post("/login", json=person, headers={"user-agent": f"agent {n}"}).json() for n in range(2)]

    first = house.get("/v1/me/sessions", params={"limit": 2}, headers=bearing(entry)).json()
    rest = house.get("/v1/me/sessions", params={"after": first["last_id"]}, headers=bearing(entry)).json()

    assert [item["user_agent"] for item in first["data"]] == ["agent 1", "agent 0"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    (mine,) = rest["data"]
    assert (mine["current"], mine["ip"]) == (True, "127.0.0.1")
    assert not any(item["current"] for item in first["data"])

    path = f"/v1/me/sessions/{first['data'][0]['id']}"
    assert house.delete(path, headers=bearing(entry)).json()["deleted"] is True
    refused(house.get("/v1/models", headers=bearing(others[1])), 401)
    refused(house.delete(path, headers=bearing(entry)), 404, param="session_id")


def test_nobody_sees_or_ends_the_sessions_of_others(visitor, stranger):
    seen = stranger.request("GET", "/v1/me/sessions").json()

    assert [item["id"] for item in seen["data"]] == [stranger.caller.session_id]
    refused(stranger.request("DELETE", f"/v1/me/sessions/{visitor.caller.session_id}"), 404)
    assert visitor.request("GET", "/v1/models").status_code == 200


def test_logging_out_everywhere_ends_all(house, person, entry):
    other = house.post("/login", json=person).json()

    answer = house.post("/auth/logout_all", headers=bearing(entry))

    assert answer.json() == {"object": "sessions.deleted", "deleted": 2}
    for tokens in (entry, other):
        refused(house.get("/v1/models", headers=bearing(tokens)), 401)


def test_a_password_is_changed_by_who_knows_it(house, person, entry):
    other = house.post("/login", json=person).json()
    change = {"current_password": PASSWORD, "new_password": "a newer horse"}

    def ask(**changes):
        return house.post("/auth/password/change", json=change | changes, headers=bearing(entry))

    refused(ask(current_password="wrong horse"), 403, param="current_password", code="invalid_credentials")
    refused(ask(new_password="password1"), 400, param="new_password", code="invalid_password")
    refused(ask(new_password=person["email"]), 400, param="new_password")
    assert ask().json() == {"object": "sessions.deleted", "deleted": 1}

    refused(house.get("/v1/models", headers=bearing(other)), 401)
    assert house.get("/v1/models", headers=bearing(entry)).status_code == 200
    refused(house.post("/login", json=person), 401)
    assert house.post("/login", json=person | {"password": "a newer horse"}).status_code == 200
