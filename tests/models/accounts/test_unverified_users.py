"""Prune unverified users whose accounts are unused."""

import pytest

from models.access import api_keys, sessions
from models.accounts import accounts, unverified_users
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import fetch_all
from models.platform.ids import new_id
from models.platform.secrets import hash_secret
from models.turns import conversations

#: Tables that need no check: their rows are deleted by cascade, or belong to a row of a table that is checked.
DEPENDENT_TABLES = {
    "account_events",
    "approvals",
    "audit_events",
    "batch_lines",
    "budgets",
    "conversation_items",
    "credit_grants",
    "credit_notes",
    "firings",
    "idempotency_keys",
    "invoices",
    "mcp_tool_lists",
    "mcp_tool_pins",
    "memberships",
    "memory_spaces",
    "payment_methods",
    "payments",
    "postings",
    "refunds",
    "reports",
    "responses",
    "sessions",
    "spending",
    "spending_reservations",
    "subscriptions",
    "usage_quarters",
    "replaced_usage",
    "error_counts",
    "memory_counts",
    "usage_segments",
    "webhook_deliveries",
    "upload_parts",
}


@pytest.fixture
def unverified(empty_database):
    """A user who signed up two months ago and whose session has expired."""
    with empty_database.transaction() as connection:
        unverified = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash="a hash")
        sessions.create(connection, unverified.user_id, account_id=unverified.account_id)
        connection.execute("UPDATE users SET created_at = now() - interval '2 months'")
        connection.execute("UPDATE sessions SET expires_at = now() - interval '1 month'")
    return unverified


def add_member(connection, unverified):
    friend = accounts.create(connection, email="friend@example.com", password_hash=None)
    statement = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')"
    connection.execute(statement, (unverified.account_id, friend.user_id))


def join_other_account(connection, unverified):
    friend = accounts.create(connection, email="friend@example.com", password_hash=None)
    statement = "INSERT INTO memberships (account_id, user_id, role) VALUES (%s, %s, 'member')"
    connection.execute(statement, (friend.account_id, unverified.user_id))


def insert_key(connection, unverified):
    owner = {"key_id": new_id("key"), "account_id": unverified.account_id, "user_id": unverified.user_id}
    api_keys.insert(
        connection, name="a key", hint="sk-…", secret_hash=hash_secret("x"), scopes=["read"], expires_at=None, **owner
    )


def link_identity(connection, unverified):
    statement = "INSERT INTO identities (provider, subject, user_id) VALUES ('corp', 'me', %s)"
    connection.execute(statement, (unverified.user_id,))


def insert_usage(connection, unverified):
    connection.execute(
        "INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens)"
        " VALUES ('job_1', %s, 'm', 1, 0, 2)",
        (unverified.account_id,),
    )


def insert_effect(connection, unverified):
    connection.execute(
        "INSERT INTO effects (job_id, step, account_id, idempotency_key, request_hash)"
        " VALUES (%s, 'charge', %s, 'a key', 'a hash')",
        (new_id("job"), unverified.account_id),
    )


def users(database):
    with database.connection() as connection:
        return {row["id"] for row in fetch_all(connection, "SELECT id FROM users", {})}


def prune(database):
    with database.transaction() as connection:
        return unverified_users.prune(connection, 10)


def test_an_unused_account_is_deleted_with_its_user(empty_database, unverified):
    assert prune(empty_database) == 1

    assert users(empty_database) == set()
    with empty_database.connection() as connection:
        assert fetch_all(connection, "SELECT id FROM accounts WHERE id <> 'platform'", {}) == []
    assert prune(empty_database) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda connection, unverified: connection.execute("UPDATE users SET email_verified_at = now()"),
        lambda connection, unverified: connection.execute("UPDATE users SET operator = true"),
        lambda connection, unverified: connection.execute("UPDATE users SET created_at = now() - interval '29 days'"),
        lambda connection, unverified: connection.execute("""UPDATE accounts SET limits = '{"streams": 7}'"""),
        lambda connection, unverified: sessions.create(connection, unverified.user_id),
        lambda connection, unverified: enqueue(connection, NewJob("turn.run", unverified.account_id)),
        lambda connection, unverified: conversations.create(
                connection, new_id("conv"), unverified.account_id, unverified.user_id, {}
            ),
    add_member, join_other_account, insert_key, link_identity, insert_usage, insert_effect,
    ],
)  # fmt: skip
def test_a_user_with_data_or_a_verified_address_is_kept(empty_database, unverified, change):
    with empty_database.transaction() as connection:
        change(connection, unverified)

    assert prune(empty_database) == 0

    assert unverified.user_id in users(empty_database)


def test_a_user_who_logs_in_at_the_same_time_is_skipped(empty_database, unverified):
    with empty_database.transaction() as connection:
        sessions.create(connection, unverified.user_id)

        assert prune(empty_database) == 0

    assert users(empty_database) == {unverified.user_id}


def test_every_table_is_checked(empty_database):
    with empty_database.connection() as connection:
        tables = fetch_all(
            connection,
            "SELECT relname AS name FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
            " WHERE attname = 'account_id' AND relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace",
            {},
        )

    unchecked = {table["name"] for table in tables if f"FROM {table['name']} WHERE" not in unverified_users.UNUSED}
    assert unchecked == DEPENDENT_TABLES
