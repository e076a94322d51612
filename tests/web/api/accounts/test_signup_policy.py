"""`SANGHA_SIGNUP` and `SANGHA_SIGNUP_DOMAINS`: who may become a user."""

import pytest

from models.platform.ids import new_id
from tests.web.api_client import ApiUser, app_client, assert_error

PASSWORD = "correct horse battery"


def sign_up(client, domain="example.com"):
    return client.post("/signup", json={"email": f"{new_id('test')}@{domain}", "password": PASSWORD})


@pytest.fixture
def client_with(settings):
    """`client_with(**settings)` → a context with a client of an application with these settings."""
    return lambda **update: app_client(settings.model_copy(update=update))


def test_only_addresses_of_the_configured_domains_sign_up(client_with):
    with client_with(signup_domains=("example.com", "example.org")) as client:
        assert sign_up(client).status_code == 201
        assert sign_up(client, "EXAMPLE.ORG").status_code == 201
        assert_error(sign_up(client, "evil.example"), 403, param="email", code="domain_not_allowed")
        assert_error(sign_up(client, "sub.example.com"), 403, code="domain_not_allowed")


@pytest.mark.parametrize(
    ("access", "code", "accepted"), [("invited", "invitation_required", 200), ("closed", "signup_closed", 403)]
)
def test_without_open_signup_a_new_user_needs_an_invitation_or_is_rejected(
    client_with, database, mailbox, access, code, accepted
):
    guest = f"{new_id('guest')}@example.com"
    with client_with(signup=access) as client:
        assert_error(sign_up(client), 403, code=code)
        inviter = ApiUser(client, database)
        with database.connection() as connection:
            connection.execute("UPDATE users SET email_verified_at = now() WHERE id = %s", (inviter.caller.user_id,))
        assert inviter.request("POST", "/v1/account/invitations", json={"email": guest}).status_code == 201
        body = {"token": mailbox.token(guest), "password": PASSWORD}

        assert client.post("/auth/invitations/accept", json=body).status_code == accepted
        inviter.delete_account()


def test_existing_users_log_in_where_signup_is_closed(client_with, api):
    credentials = {"email": f"{new_id('test')}@example.com", "password": PASSWORD}
    assert api.post("/signup", json=credentials).status_code == 201

    with client_with(signup="closed") as client:
        assert client.post("/login", json=credentials).status_code == 200


def test_an_address_with_other_characters_than_ascii_before_the_at_is_rejected(api):
    body = {"email": f"ünï-{new_id('test')}@example.com", "password": PASSWORD}

    assert_error(api.post("/signup", json=body), 400, param="email", code="invalid_email")
