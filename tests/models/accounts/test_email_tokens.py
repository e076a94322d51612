"""Use, replace and prune e-mailed tokens and invitations."""

import pytest

from models.accounts import accounts, email_tokens, invitations
from models.accounts.accounts import Role
from models.accounts.email_tokens import TokenOwner, TokenPurpose
from models.platform.database import fetch_one
from models.platform.ids import new_id


@pytest.fixture
def connection(empty_database):
    with empty_database.connection() as connection:
        yield connection


@pytest.fixture
def member(connection):
    return accounts.create(connection, email="me@example.com", password_hash=None)


def issue(connection, member, secret, purpose=TokenPurpose.RESET):
    email_tokens.issue(connection, purpose, secret, user_id=member.user_id, email="me@example.com")


def test_a_token_is_used_once_and_invalidates_the_others_of_its_purpose(connection, member):
    for secret in ("first", "second"):
        issue(connection, member, secret)
    issue(connection, member, "other", TokenPurpose.VERIFY)

    assert email_tokens.redeem(connection, TokenPurpose.RESET, "first") == TokenOwner(member.user_id, "me@example.com")

    for secret in ("first", "second"):
        assert email_tokens.redeem(connection, TokenPurpose.RESET, secret) is None
        # issuing it again does not make it valid
        issue(connection, member, secret)
        assert email_tokens.peek(connection, TokenPurpose.RESET, secret) is None
    assert email_tokens.redeem(connection, TokenPurpose.VERIFY, "other") is not None


def test_prune_deletes_tokens_and_invitations_that_ended_long_ago(connection, member):
    for secret in ("old", "good"):
        issue(connection, member, secret)
        invitation = invitations.create(
            connection,
            new_id("inv"),
            member.account_id,
            email=f"{secret}@example.com",
            role=Role.MEMBER,
            invited_by=member.user_id,
        )
    connection.execute("UPDATE email_tokens SET expires_at = now() - interval '2 days' WHERE hash = sha256('old')")
    connection.execute("UPDATE invitations SET revoked_at = now() - interval '31 days' WHERE email = 'old@example.com'")

    assert (email_tokens.prune(connection, 10), invitations.prune(connection, 10)) == (1, 1)

    assert email_tokens.peek(connection, TokenPurpose.RESET, "good") is not None
    assert fetch_one(connection, "SELECT id FROM invitations") == {"id": invitation.id}
