"""Given somebody with an account, when they ask who they are and what they may use, then they are told."""

import pytest

from tests.web.api_client import assert_error


def test_a_person_sees_themselves_and_where_they_belong(user):
    me = user.request("GET", "/v1/me").json()

    assert (me["id"], me["account_id"], me["role"]) == (user.caller.user_id, user.caller.account_id, "owner")
    assert (me["email_verified"], me["operator"], me["name"]) == (False, False, "")
    (place,) = me["memberships"]
    assert (place["id"], place["role"]) == (user.caller.account_id, "owner")


def test_a_person_and_an_account_are_renamed(user):
    assert user.request("PATCH", "/v1/me", json={"name": "Ada Lovelace"}).json()["name"] == "Ada Lovelace"
    assert user.request("PATCH", "/v1/account", json={"name": "Engines"}).json()["name"] == "Engines"

    assert user.request("GET", "/v1/me").json()["memberships"][0]["name"] == "Engines"
    # What is left out stays
    assert user.request("PATCH", "/v1/me", json={}).json()["name"] == "Ada Lovelace"


@pytest.mark.parametrize("path", ["/v1/me", "/v1/account"])
@pytest.mark.parametrize(
    "name", ["", "x" * 101, "two\nlines", "a\u2028b", 5, "win at HTTPS://bad.example", "Www.bad.example"]
)
def test_a_name_is_one_short_line(user, path, name):
    assert_error(user.request("PATCH", path, json={"name": name}), 400, param="name")


@pytest.mark.parametrize("field", ["id", "email", "operator", "role", "plan", "limits"])
def test_nothing_else_can_be_changed(user, field):
    for path in ("/v1/me", "/v1/account"):
        assert_error(user.request("PATCH", path, json={field: "x"}), 400, param=field, code="unknown_parameter")


def test_an_account_tells_its_plan_and_its_limits(user, database):
    with database.connection() as connection:
        connection.execute("""UPDATE accounts SET limits = '{"streams": 7}' WHERE id = %s""", (user.caller.account_id,))

    account = user.request("GET", "/v1/account").json()

    assert account["id"] == user.caller.account_id
    assert account["plan"] == {"id": "default", "name": "Default"}
    assert account["limits"]["streams"] == 7
    assert account["limits"]["requests_per_minute"] > 0
