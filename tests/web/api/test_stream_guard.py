"""Open event streams end soon after their credentials."""

import pytest

from models.access import auth_context
from models.access.auth_context import Credential
from models.accounts.accounts import Role, Scope
from models.platform.ids import new_id
from pipelines.accounts import keys


@pytest.fixture
def open_stream(principals):
    """`open_stream(principal)` → a context with an open stream of a queued turn of the principal."""

    def open_stream(principal):
        body = {"input": "hello", "background": True}
        created = principals.request(principal, "POST", "/v1/responses", json=body)
        assert created.status_code == 200, created.text
        headers = {"authorization": f"Bearer {principals.credentials[principal]}"}
        path = f"/v1/responses/{created.json()['id']}?stream=true"
        return principals.client.stream("GET", path, headers=headers)

    return open_stream


def test_the_stream_of_a_removed_member_ends(principals, open_stream):
    with open_stream("member") as stream:
        events = stream.iter_lines()
        assert next(events).startswith("id:")
        user_id = principals.user_ids["member"]
        assert principals.request("owner", "DELETE", f"/v1/account/members/{user_id}").status_code == 200

        list(events)  # until the server ends the stream


def test_the_stream_of_a_revoked_session_ends_and_that_of_another_user_does_not(principals, open_stream, api):
    streams = api.app.state.platform.streams
    with open_stream("owner") as kept, open_stream("member") as ended:
        others, events = kept.iter_lines(), ended.iter_lines()
        assert next(others).startswith("id:")
        assert next(events).startswith("id:")
        assert principals.request("member", "POST", "/auth/logout_all").status_code == 200

        list(events)

        assert principals.user_ids["owner"] in [credential.user_id for credential in streams.credentials()]


def test_credentials_that_have_ended_are_found_in_one_statement(database, principals, user, other_user):
    with database.transaction() as connection:
        account_id = user.caller.account_id
        secret = keys.make_secret()
        connection.execute(
            "INSERT INTO api_keys (id, account_id, user_id, name, hint, hash, scopes)"
            " VALUES (%s, %s, %s, 'a', 'a', sha256(%s::bytea), '{read}')",
            (new_id("key"), account_id, user.caller.user_id, secret.encode()),
        )
        key = auth_context.for_api_key(connection, secret)
        assert key is not None
        assert (key.caller.role, key.caller.scopes) == (Role.OWNER, frozenset({Scope.READ}))
        mine, other, by_key = (Credential.of(caller) for caller in (user.caller, other_user.caller, key.caller))

        assert auth_context.find_ended(connection, [mine, other, by_key]) == set()

        connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = %s", (key.caller.key_id,))
        connection.execute("UPDATE sessions SET revoked_at = now() WHERE id = %s", (other_user.caller.session_id,))
        assert auth_context.find_ended(connection, [mine, other, by_key]) == {by_key, other}
