"""`/v1/me` and `/v1/account`: the caller's profile, memberships, plan and limits."""

import pytest

from tests.web.api_client import assert_error


def test_me_has_the_user_and_their_memberships(user):
    me = user.request("GET", "/v1/me").json()

    assert (me["id"], me["account_id"], me["role"]) == (user.caller.user_id, user.caller.account_id, "owner")
    assert (me["email_verified"], me["operator"], me["name"]) == (False, False, "")
    (membership,) = me["memberships"]
    assert (membership["id"], membership["role"]) == (user.caller.account_id, "owner")


def test_user_and_account_are_renamed(user):
    assert user.request("PATCH", "/v1/me", json={"name": "Ada Lovelace"}).json()["name"] == "Ada Lovelace"
    assert user.request("PATCH", "/v1/account", json={"name": "Engines"}).json()["name"] == "Engines"

    assert user.request("GET", "/v1/me").json()["memberships"][0]["name"] == "Engines"
    # Omitted fields stay unchanged
    assert user.request("PATCH", "/v1/me", json={}).json()["name"] == "Ada Lovelace"


@pytest.mark.parametrize("path", ["/v1/me", "/v1/account"])
@pytest.mark.parametrize(
    "name", ["", "x" * 101, "two\nlines", "a\u2028b", 5, "win at HTTPS://bad.example", "Www.bad.example"]
)
def test_an_invalid_name_is_rejected(user, path, name):
    assert_error(user.request("PATCH", path, json={"name": name}), 400, param="name")


@pytest.mark.parametrize("field", ["id", "email", "operator", "role", "plan", "limits"])
def test_other_fields_cannot_be_changed(user, field):
    for path in ("/v1/me", "/v1/account"):
        assert_error(user.request("PATCH", path, json={field: "x"}), 400, param=field, code="unknown_parameter")


def test_account_has_its_plan_and_effective_limits(user, database):
    with database.connection() as connection:
        connection.execute("""UPDATE accounts SET limits = '{"streams": 7}' WHERE id = %s""", (user.caller.account_id,))

    account = user.request("GET", "/v1/account").json()

    assert account["id"] == user.caller.account_id
    assert account["plan"] == {"id": "default", "name": "Default"}
    assert account["limits"]["streams"] == 7
    assert account["limits"]["requests_per_minute"] > 0
