"""Given people in an account, when they make, show and revoke API keys, then a key opens what it may and no more."""

import contextlib
import http.client
import logging
import time

import pytest

from models.accounts.accounts import Role, Scope
from pipelines.accounts import keys
from tests.web.api_client import ApiUser, assert_error
from tests.web.principals import Principals

UNTIL_2999 = 32_472_144_000


@pytest.fixture
def principals(api, database, settings):
    """People of one account, and others."""
    principals = Principals(api, database, settings)
    yield principals
    principals.delete(database)


@pytest.fixture
def make(user):
    """`make(scopes=[…])` → the new key's object, with its secret."""

    def make(by: ApiUser = user, **body):
        answer = by.request("POST", "/v1/api_keys", json={"name": "my app", **body})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return make


def shown(client, secret: str, method: str = "GET", path: str = "/v1/models", **options):
    """A request with a key."""
    return client.request(method, path, headers={"authorization": f"Bearer {secret}"}, **options)


def audited(database, account_id: str) -> list[tuple[str, str]]:
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT action, target FROM audit_events WHERE account_id = %s AND action LIKE 'key.%%' ORDER BY id",
            (account_id,),
        )
        return [(row["action"], row["target"]) for row in rows]


def test_a_key_is_shown_once_stored_as_its_hash_and_opens_what_people_usually_need(api, user, database, make):
    made = make()

    assert made["key"].startswith("sk-")
    assert (made["scopes"], made["status"], made["expires_at"]) == (["read", "write", "inference"], "active", None)
    assert shown(api, made["key"]).status_code == 200
    read = user.request("GET", f"/v1/api_keys/{made['id']}").json()
    assert read.pop("last_used_at") == pytest.approx(time.time(), abs=60)
    assert read == {name: value for name, value in made.items() if name not in ("key", "last_used_at")}
    with database.connection() as connection:
        (row,) = connection.execute("SELECT api_keys::text AS row FROM api_keys WHERE id = %s", (made["id"],))
    assert made["key"][7:-4] not in row["row"]
    assert audited(database, user.caller.account_id) == [("key.created", made["id"])]


def test_a_revoked_key_opens_nothing_from_the_next_request_on_and_tells_the_log(api, user, database, make, caplog):
    made = make()
    caplog.set_level(logging.INFO, "web.access.gate")

    first, again = (user.request("DELETE", f"/v1/api_keys/{made['id']}") for _ in range(2))

    assert first.json() == again.json() == {"id": made["id"], "object": "api_key.deleted", "deleted": True}
    assert_error(shown(api, made["key"]), 401, code="invalid_api_key")
    assert user.request("GET", f"/v1/api_keys/{made['id']}").json()["status"] == "revoked"
    assert [action for action, _ in audited(database, user.caller.account_id)] == ["key.created", "key.revoked"]
    assert made["id"] in caplog.text
    assert made["key"][7:-4] not in caplog.text
    assert_error(user.request("PATCH", f"/v1/api_keys/{made['id']}", json={"expires_at": None}), 409, code="key_ended")


def test_a_repeated_request_gets_the_same_key_and_one_whose_answer_was_lost_a_fresh_secret(api, user, database, make):
    body, headers = {"name": "my app"}, {"idempotency-key": "once"}
    first, again = (user.request("POST", "/v1/api_keys", json=body, headers=headers).json() for _ in range(2))
    with database.connection() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL, locked_until = now()"
            " WHERE account_id = %s",
            (user.caller.account_id,),
        )

    lost = user.request("POST", "/v1/api_keys", json=body, headers=headers).json()

    assert again == first
    assert (lost["id"], lost["key"] != first["key"]) == (first["id"], True)
    assert [shown(api, key["key"]).status_code for key in (first, lost)] == [401, 200]
    assert len(user.request("GET", "/v1/api_keys").json()["data"]) == 1


def test_a_name_and_an_end_can_be_changed_and_taken_away(user, make):
    made = make(expires_in=3600)
    assert made["expires_at"] == pytest.approx(time.time() + 3600, abs=60)
    address = f"/v1/api_keys/{made['id']}"

    renamed = user.request("PATCH", address, json={"name": "another"}).json()
    retimed = user.request("PATCH", address, json={"expires_at": UNTIL_2999}).json()
    endless = user.request("PATCH", address, json={"expires_at": None}).json()

    assert (renamed["name"], renamed["expires_at"]) == ("another", made["expires_at"])
    assert (retimed["name"], retimed["expires_at"], endless["expires_at"]) == ("another", UNTIL_2999, None)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "app\nINFO a forged line"}, "name"),
        ({"name": "app\u2028forged"}, "name"),
        ({"name": "app", "scopes": []}, "scopes"),
        ({"name": "app", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "app", "expires_at": 1}, "expires_at"),
        ({"name": "app", "expires_in": 0}, "expires_in"),
        ({"name": "app", "expires_in": 60, "expires_at": UNTIL_2999}, "expires_in"),
        ({"name": "app", "account_id": "acct_other"}, "account_id"),
        ({"name": "app", "user_id": "user_other"}, "user_id"),
    ],
)
def test_what_is_wrong_is_named(user, body, param):
    assert_error(user.request("POST", "/v1/api_keys", json=body), 400, param=param)


def test_nobody_gives_a_key_more_than_their_role(principals):
    for user, scope, status in [
        ("member", "admin", 403),
        ("member", "billing", 403),
        ("member", "write", 201),
        ("admin", "admin", 201),
        ("admin", "billing", 201),
    ]:
        answer = principals.request(user, "POST", "/v1/api_keys", json={"name": "app", "scopes": ["read", scope]})
        assert answer.status_code == status, answer.text


def test_members_see_and_manage_their_own_keys_and_admins_all(principals, database):
    with database.transaction() as connection:
        _, others = principals.create_key(connection, principals.owner_id, Scope.READ)
    own = principals.request("member", "POST", "/v1/api_keys", json={"name": "mine"}).json()["id"]

    listed = principals.request("member", "GET", "/v1/api_keys").json()["data"]
    for_admins = {key["id"] for key in principals.request("admin", "GET", "/v1/api_keys?limit=100").json()["data"]}

    assert [key["id"] for key in listed] == [own]
    assert {own, others} <= for_admins
    for method, body in [("GET", None), ("PATCH", {"name": "hers"}), ("DELETE", None)]:
        assert_error(principals.request("member", method, f"/v1/api_keys/{others}", json=body), 404, code="not_found")
    assert principals.request("admin key", "DELETE", f"/v1/api_keys/{own}").status_code == 200
    assert principals.request("admin", "GET", f"/v1/api_keys/{own}").json()["status"] == "revoked"


def test_pages_are_newest_first(user, make):
    made = [make(name=f"app {number}")["id"] for number in range(3)]

    first = user.request("GET", "/v1/api_keys?limit=2").json()
    second = user.request("GET", f"/v1/api_keys?limit=2&after={first['last_id']}").json()

    assert [key["id"] for page in (first, second) for key in page["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_a_member_has_at_most_a_bounded_number_of_living_keys(user, make, monkeypatch):
    monkeypatch.setattr(keys, "MOST", 2)
    first = make()
    make()

    assert_error(user.request("POST", "/v1/api_keys", json={"name": "x"}), 409, code="too_many_keys")
    user.request("DELETE", f"/v1/api_keys/{first['id']}")

    assert user.request("POST", "/v1/api_keys", json={"name": "x"}).status_code == 201


def test_a_demoted_admins_key_falls_with_them(api, principals, database):
    made = principals.request("admin", "POST", "/v1/api_keys", json={"name": "app", "scopes": ["read", "admin"]}).json()
    assert shown(api, made["key"], path="/v1/audit_events").status_code == 200

    with database.connection() as connection:
        connection.execute(
            "UPDATE memberships SET role = %s WHERE account_id = %s AND role = %s",
            (Role.MEMBER, principals.account_id, Role.ADMIN),
        )

    assert_error(shown(api, made["key"], path="/v1/audit_events"), 403, code="forbidden")
    assert_error(principals.request("admin", "POST", "/v1/api_keys", json={"name": "app", "scopes": ["admin"]}), 403)
    assert {key["user_id"] for key in shown(api, made["key"], path="/v1/api_keys").json()["data"]} == {made["user_id"]}


def test_a_removed_members_keys_stay_dead_when_they_are_taken_in_again(api, principals, database):
    made = principals.request("member", "POST", "/v1/api_keys", json={"name": "app"}).json()
    names = {"account_id": principals.account_id, "user_id": made["user_id"]}

    with database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s", names)
    assert_error(shown(api, made["key"]), 401)
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%(account_id)s, %(user_id)s, 'member')", names
        )

    assert_error(shown(api, made["key"]), 401)


@pytest.mark.parametrize(
    "spoil",
    [
        str.swapcase,
        str.upper,
        lambda secret: secret[:-1],
        lambda secret: secret + "0",
        lambda secret: secret[:10] + secret[11:] + "a",
        lambda secret: secret.replace("sk-", "sk_"),
        lambda secret: f"{secret} {secret}",
        lambda secret: f"{secret},{secret}",
        lambda secret: f'"{secret}"',
        lambda secret: secret + "'--",
    ],
)
def test_only_the_very_secret_opens(api, make, spoil):
    assert_error(shown(api, spoil(make()["key"])), 401, code="invalid_api_key")


def test_blanks_around_a_secret_are_none_of_it(api, make):
    connection = http.client.HTTPConnection(api.base_url.host, api.base_url.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer   {make()['key']}  "})
        assert connection.getresponse().status == 200


def test_a_mistyped_secret_is_refused_without_a_look_up():
    secret = keys.make_secret()

    assert keys.is_well_formed(secret)
    wrong = [secret[:place] + ("a" if secret[place] != "a" else "b") + secret[place + 1 :] for place in range(54)]
    assert not any(keys.is_well_formed(typed) for typed in wrong)
    assert len({keys.make_secret() for _ in range(100)}) == 100
