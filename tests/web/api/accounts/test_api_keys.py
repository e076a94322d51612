"""`/v1/api_keys`: creating, using, changing and revoking API keys, and what their scopes allow."""

import contextlib
import http.client
import logging
import time
from dataclasses import replace

import pytest

from models.access import sessions
from models.accounts.accounts import Role, Scope
from pipelines.accounts import keys
from tests.web.api_client import ApiUser, assert_error

UNTIL_2999 = 32_472_144_000


@pytest.fixture
def create_key(user):
    """`create_key(scopes=[…])` → the new key's object, with its secret."""

    def create_key(creator: ApiUser = user, **body):
        answer = creator.request("POST", "/v1/api_keys", json={"name": "my app", **body})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return create_key


def request_with_key(client, secret: str, method: str = "GET", path: str = "/v1/models", **options):
    """Send a request with an API key."""
    return client.request(method, path, headers={"authorization": f"Bearer {secret}"}, **options)


def key_audit_events(database, account_id: str) -> list[tuple[str, str]]:
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT action, target FROM audit_events WHERE account_id = %s AND action LIKE 'key.%%' ORDER BY id",
            (account_id,),
        )
        return [(row["action"], row["target"]) for row in rows]


def test_a_new_key_is_returned_once_stored_as_a_hash_and_has_default_scopes(api, user, database, create_key):
    created = create_key()

    assert created["key"].startswith("sk-")
    assert (created["scopes"], created["status"], created["expires_at"]) == (
        ["read", "write", "inference"],
        "active",
        None,
    )
    assert request_with_key(api, created["key"]).status_code == 200
    read = user.request("GET", f"/v1/api_keys/{created['id']}").json()
    assert read.pop("last_used_at") == pytest.approx(time.time(), abs=60)
    assert read == {name: value for name, value in created.items() if name not in ("key", "last_used_at")}
    with database.connection() as connection:
        (row,) = connection.execute("SELECT api_keys::text AS row FROM api_keys WHERE id = %s", (created["id"],))
    assert created["key"][7:-4] not in row["row"]
    assert key_audit_events(database, user.caller.account_id) == [("key.created", created["id"])]


def test_a_revoked_key_is_rejected_from_the_next_request_on_and_logged(api, user, database, create_key, caplog):
    created = create_key()
    caplog.set_level(logging.INFO, "web.access.gate")

    first, second = (user.request("DELETE", f"/v1/api_keys/{created['id']}") for _ in range(2))

    assert first.json() == second.json() == {"id": created["id"], "object": "api_key.deleted", "deleted": True}
    assert_error(request_with_key(api, created["key"]), 401, code="invalid_api_key")
    assert user.request("GET", f"/v1/api_keys/{created['id']}").json()["status"] == "revoked"
    assert [action for action, _ in key_audit_events(database, user.caller.account_id)] == [
        "key.created",
        "key.revoked",
    ]
    assert created["id"] in caplog.text
    assert created["key"][7:-4] not in caplog.text
    assert_error(
        user.request("PATCH", f"/v1/api_keys/{created['id']}", json={"expires_at": None}), 409, code="key_ended"
    )


def test_a_repeated_request_returns_the_same_key_or_a_new_secret_if_the_first_answer_was_lost(
    api, user, database, create_key
):
    body, headers = {"name": "my app"}, {"idempotency-key": "once"}
    first, second = (user.request("POST", "/v1/api_keys", json=body, headers=headers).json() for _ in range(2))
    with database.connection() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL, locked_until = now()"
            " WHERE account_id = %s",
            (user.caller.account_id,),
        )

    recreated = user.request("POST", "/v1/api_keys", json=body, headers=headers).json()

    assert second == first
    assert (recreated["id"], recreated["key"] != first["key"]) == (first["id"], True)
    assert [request_with_key(api, key["key"]).status_code for key in (first, recreated)] == [401, 200]
    assert len(user.request("GET", "/v1/api_keys").json()["data"]) == 1


def test_name_and_expiry_can_be_changed_and_expiry_removed(user, create_key):
    created = create_key(expires_in=3600)
    assert created["expires_at"] == pytest.approx(time.time() + 3600, abs=60)
    path = f"/v1/api_keys/{created['id']}"

    renamed = user.request("PATCH", path, json={"name": "another"}).json()
    rescheduled = user.request("PATCH", path, json={"expires_at": UNTIL_2999}).json()
    unlimited = user.request("PATCH", path, json={"expires_at": None}).json()

    assert (renamed["name"], renamed["expires_at"]) == ("another", created["expires_at"])
    assert (rescheduled["name"], rescheduled["expires_at"], unlimited["expires_at"]) == ("another", UNTIL_2999, None)


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
def test_invalid_input_is_rejected_by_parameter(user, body, param):
    assert_error(user.request("POST", "/v1/api_keys", json=body), 400, param=param)


def test_a_key_cannot_have_scopes_above_the_role_of_its_creator(principals):
    for user, scope, status in [
        ("member", "admin", 403),
        ("member", "billing", 403),
        ("member", "write", 201),
        ("admin", "admin", 201),
        ("admin", "billing", 201),
    ]:
        answer = principals.request(user, "POST", "/v1/api_keys", json={"name": "app", "scopes": ["read", scope]})
        assert answer.status_code == status, answer.text


def test_members_manage_their_own_keys_and_admins_all_keys(principals, database):
    with database.transaction() as connection:
        _, owners_key_id = principals.create_key(connection, principals.owner_id, Scope.READ)
    members_key_id = principals.request("member", "POST", "/v1/api_keys", json={"name": "mine"}).json()["id"]

    listed = principals.request("member", "GET", "/v1/api_keys").json()["data"]
    for_admins = {key["id"] for key in principals.request("admin", "GET", "/v1/api_keys?limit=100").json()["data"]}

    assert [key["id"] for key in listed] == [members_key_id]
    assert {members_key_id, owners_key_id} <= for_admins
    for method, body in [("GET", None), ("PATCH", {"name": "hers"}), ("DELETE", None)]:
        assert_error(
            principals.request("member", method, f"/v1/api_keys/{owners_key_id}", json=body), 404, code="not_found"
        )
    assert principals.request("admin key", "DELETE", f"/v1/api_keys/{members_key_id}").status_code == 200
    assert principals.request("admin", "GET", f"/v1/api_keys/{members_key_id}").json()["status"] == "revoked"


def test_keys_are_listed_in_pages_newest_first(user, create_key):
    created = [create_key(name=f"app {number}")["id"] for number in range(3)]

    first = user.request("GET", "/v1/api_keys?limit=2").json()
    second = user.request("GET", f"/v1/api_keys?limit=2&after={first['last_id']}").json()

    assert [key["id"] for page in (first, second) for key in page["data"]] == created[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_the_number_of_active_keys_per_member_is_limited(user, create_key, monkeypatch):
    monkeypatch.setattr(keys, "MAX_KEYS", 2)
    first = create_key()
    create_key()

    assert_error(user.request("POST", "/v1/api_keys", json={"name": "x"}), 409, code="too_many_keys")
    user.request("DELETE", f"/v1/api_keys/{first['id']}")

    assert user.request("POST", "/v1/api_keys", json={"name": "x"}).status_code == 201


def test_a_key_loses_admin_rights_when_its_creator_is_demoted(api, principals, database):
    created = principals.request(
        "admin", "POST", "/v1/api_keys", json={"name": "app", "scopes": ["read", "admin"]}
    ).json()
    assert request_with_key(api, created["key"], path="/v1/audit_events").status_code == 200

    with database.connection() as connection:
        connection.execute(
            "UPDATE memberships SET role = %s WHERE account_id = %s AND role = %s",
            (Role.MEMBER, principals.account_id, Role.ADMIN),
        )

    assert_error(request_with_key(api, created["key"], path="/v1/audit_events"), 403, code="forbidden")
    assert_error(principals.request("admin", "POST", "/v1/api_keys", json={"name": "app", "scopes": ["admin"]}), 403)
    assert {key["user_id"] for key in request_with_key(api, created["key"], path="/v1/api_keys").json()["data"]} == {
        created["user_id"]
    }


def test_keys_of_a_removed_member_stay_invalid_after_they_rejoin(api, principals, database):
    created = principals.request("member", "POST", "/v1/api_keys", json={"name": "app"}).json()
    membership = {"account_id": principals.account_id, "user_id": created["user_id"]}

    with database.connection() as connection:
        connection.execute(
            "DELETE FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s", membership
        )
    assert_error(request_with_key(api, created["key"]), 401)
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%(account_id)s, %(user_id)s, 'member')",
            membership,
        )

    assert_error(request_with_key(api, created["key"]), 401)


@pytest.mark.parametrize(
    "corrupt",
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
def test_a_corrupted_secret_is_rejected(api, create_key, corrupt):
    assert_error(request_with_key(api, corrupt(create_key()["key"])), 401, code="invalid_api_key")


def test_spaces_around_a_secret_are_ignored(api, create_key):
    connection = http.client.HTTPConnection(api.base_url.host, api.base_url.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models", headers={"authorization": f"Bearer   {create_key()['key']}  "})
        assert connection.getresponse().status == 200


def test_a_single_wrong_character_is_caught_by_the_checksum():
    secret = keys.make_secret()

    assert keys.is_well_formed(secret)
    mistyped = [secret[:index] + ("a" if secret[index] != "a" else "b") + secret[index + 1 :] for index in range(54)]
    assert not any(keys.is_well_formed(secret_) for secret_ in mistyped)
    assert len({keys.make_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "name", ["evil.com/login", "https://evil.example", "www.evil.example", "a\u202egnp.exe", "a\u2066b", "a\u0007b"]
)
def test_a_name_with_a_link_or_hidden_characters_is_rejected(user, name):
    assert_error(user.request("POST", "/v1/api_keys", json={"name": name}), 400, param="name")


def test_only_its_creator_extends_a_key(user, other_user, database):
    # Given a key of an owner, and an admin of the same account
    soon, later = int(time.time()) + 3600, int(time.time()) + 7200
    key = user.request("POST", "/v1/api_keys", json={"name": "theirs", "expires_at": soon}).json()
    account_id = user.caller.account_id
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'admin')",
            (account_id, other_user.caller.user_id),
        )
        session_id = sessions.create(connection, other_user.caller.user_id)
    admin = replace(other_user.caller, account_id=account_id, role=Role.ADMIN, session_id=session_id)
    token = other_user.client.app.state.platform.tokens.issue(admin)
    headers, path = {"authorization": f"Bearer {token}"}, f"/v1/api_keys/{key['id']}"
    # When the admin takes the expiry off or makes it later, it is rejected; an earlier one is accepted
    for expires_at in (None, later):
        answer = other_user.client.patch(path, json={"expires_at": expires_at}, headers=headers)
        assert_error(answer, 403, param="expires_at", code="not_your_key")
    assert other_user.client.patch(path, json={"expires_at": soon - 60}, headers=headers).status_code == 200
    assert user.request("PATCH", path, json={"expires_at": None}).status_code == 200


def test_a_key_with_models_may_use_only_these(api, user, create_key):
    # Given keys for a model that there is, and for another one
    allowed, other = create_key(models=["scripted"]), create_key(models=["large"])
    body = {"model": "default", "input": "hello", "background": True}
    # When turns are asked for with each
    answers = [request_with_key(api, key["key"], "POST", "/v1/responses", json=body) for key in (allowed, other)]
    # Then only the first key may, and the second one does not see the model
    assert answers[0].status_code == 200, answers[0].text
    assert_error(answers[1], 403, code="model_not_allowed")
    listed = request_with_key(api, other["key"]).json()["data"]
    assert "scripted" not in [model["id"] for model in listed]
    # And once its models are removed, it may, too
    changed = user.request("PATCH", f"/v1/api_keys/{other['id']}", json={"models": None}).json()
    assert changed["models"] is None
    assert request_with_key(api, other["key"], "POST", "/v1/responses", json=body).status_code == 200
