"""Given people who claimed an address and never proved it, when they are pruned, then who has left anything stays."""

import pytest

from models.access import api_keys, sessions
from models.accounts import accounts, unverified_users
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import fetch_all
from models.platform.ids import new_id
from models.platform.secrets import hash_secret
from models.turns import conversations

#: Tables with an account that need not be looked into: they go along, or they hang on one that is looked into.
BRANCHES = {
    "memberships", "sessions", "audit_events", "idempotency_keys", "memory_spaces", "responses", "conversation_items",
    "firings",
}  # fmt: skip


@pytest.fixture
def claimant(empty_database):
    """Somebody who signed up two months ago, whose session has ended."""
    with empty_database.transaction() as connection:
        claimant = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
        sessions.create(connection, claimant.user_id, account_id=claimant.account_id)
        connection.execute("UPDATE users SET created_at = now() - interval '2 months'")
        connection.execute("UPDATE sessions SET expires_at = now() - interval '1 month'")
    return claimant


def join(connection, claimant):
    friend = accounts.create(connection, email="friend@example.com", password_hash=None)
    statement = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')"
    connection.execute(statement, (claimant.account_id, friend.user_id))


def belong_elsewhere(connection, claimant):
    friend = accounts.create(connection, email="friend@example.com", password_hash=None)
    statement = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')"
    connection.execute(statement, (friend.account_id, claimant.user_id))


def make_key(connection, claimant):
    belongs = {"key_id": new_id("key"), "account_id": claimant.account_id, "user_id": claimant.user_id}
    api_keys.insert(
        connection, name="a key", hint="sk-…", secret_hash=hash_secret("x"), scopes=["read"], expires_at=None, **belongs
    )


def come_by_a_provider(connection, claimant):
    statement = "INSERT INTO identities (provider, subject, user_id) VALUES ('corp', 'me', %s)"
    connection.execute(statement, (claimant.user_id,))


def pay(connection, claimant):
    connection.execute(
        "INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens)"
        " VALUES ('job_1', %s, 'm', 1, 0, 2)",
        (claimant.account_id,),
    )


def users(database):
    with database.connection() as connection:
        return {row["id"] for row in fetch_all(connection, "SELECT id FROM users", {})}


def prune(database):
    with database.transaction() as connection:
        return unverified_users.prune(connection, 10)


def test_who_has_left_nothing_is_forgotten_with_their_account(empty_database, claimant):
    assert prune(empty_database) == 1

    assert users(empty_database) == set()
    with empty_database.connection() as connection:
        assert fetch_all(connection, "SELECT id FROM accounts WHERE id <> 'platform'", {}) == []
    assert prune(empty_database) == 0


@pytest.mark.parametrize(
    "leave",
    [
        lambda connection, claimant: connection.execute("UPDATE users SET email_verified_at = now()"),
        lambda connection, claimant: connection.execute("UPDATE users SET operator = true"),
        lambda connection, claimant: connection.execute("UPDATE users SET created_at = now() - interval '29 days'"),
        lambda connection, claimant: connection.execute("""UPDATE accounts SET limits = '{"streams": 7}'"""),
        lambda connection, claimant: sessions.create(connection, claimant.user_id),
        lambda connection, claimant: enqueue(connection, NewJob("turn.run", claimant.account_id)),
        lambda connection, claimant: conversations.create(connection, new_id("conv"), claimant.account_id, {}),
        join, belong_elsewhere, make_key, come_by_a_provider, pay,
    ],
)  # fmt: skip
def test_who_has_left_or_proved_anything_stays(empty_database, claimant, leave):
    with empty_database.transaction() as connection:
        leave(connection, claimant)

    assert prune(empty_database) == 0

    assert claimant.user_id in users(empty_database)


def test_who_comes_back_at_this_moment_is_passed_over(empty_database, claimant):
    with empty_database.transaction() as connection:
        sessions.create(connection, claimant.user_id)

        assert prune(empty_database) == 0

    assert users(empty_database) == {claimant.user_id}


def test_every_table_of_an_account_is_looked_into(empty_database):
    with empty_database.connection() as connection:
        tables = fetch_all(
            connection,
            "SELECT table_name AS name FROM information_schema.columns"
            " WHERE column_name = 'account_id' AND table_schema = 'public'",
            {},
        )

    unseen = {table["name"] for table in tables if f"FROM {table['name']} WHERE" not in unverified_users.UNUSED}
    assert unseen == BRANCHES
