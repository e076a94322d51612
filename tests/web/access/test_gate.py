"""Messages for rejected API keys and access tokens."""

from tests.web.api_client import assert_error


def read_models(api, credential):
    return api.get("/v1/models", headers={"authorization": f"Bearer {credential}"})


def create_key(user):
    return user.request("POST", "/v1/api_keys", json={"name": "a key"}).json()


def test_a_revoked_api_key_is_reported_as_revoked(api, user):
    key = create_key(user)
    user.request("DELETE", f"/v1/api_keys/{key['id']}")

    message = assert_error(read_models(api, key["key"]), 401, code="invalid_api_key")

    assert message == "This API key has been revoked."


def test_an_expired_api_key_is_reported_as_expired(api, user, database):
    key = create_key(user)
    with database.connection() as connection:
        connection.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", (key["id"],))

    message = assert_error(read_models(api, key["key"]), 401, code="invalid_api_key")

    assert message == "This API key has expired."


def test_an_unknown_api_key_is_reported_as_unknown(api, user):
    key = create_key(user)
    user.delete_account()

    message = assert_error(read_models(api, key["key"]), 401, code="invalid_api_key")

    assert message == "This API key does not exist."


def test_a_malformed_api_key_is_reported_as_malformed(api):
    message = assert_error(read_models(api, "sk-truncated"), 401, code="invalid_api_key")

    assert "malformed" in message


def test_an_access_token_of_an_ended_session_asks_for_a_login(api, user):
    user.request("POST", "/auth/logout")

    message = assert_error(read_models(api, user.token), 401, code="invalid_api_key")

    assert message == "This access token is no longer valid: its session has ended. Log in again."
