"""Statements that a connection has prepared continue to work when a newer version's migration adds columns."""

from collections.abc import Iterator

import pytest

from models.accounts.ownership import Access
from models.jobs import attempts
from models.jobs.attempts import Ending
from models.platform.database import Database, fetch_all
from models.platform.ids import new_id
from models.turns import conversations
from ops.embedded_servers import Postgres
from tests.databases import add_columns, new_database
from tests.models.conftest import JobStore

#: psycopg prepares a statement when a connection executes it for the sixth time.
ROUNDS = 7


@pytest.fixture
def one_connection(postgres: Postgres) -> Iterator[Database]:
    """A pool of one connection to a database of its own."""
    with new_database(postgres) as server:
        database = Database(server.dsn, size=1)
        yield database
        database.close()


def run_statements(database: Database, account_id: str) -> None:
    """Run a job to its end, and create, update and read a conversation."""
    job_store = JobStore(database)
    job = job_store.start(account_id)
    with database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])
        conversation_id = new_id("conv")
        conversations.create(connection, conversation_id, account_id, new_id("user"), {})
        conversations.update(connection, conversation_id, Access.account(account_id), {"a": "b"})
        conversation = conversations.read(connection, conversation_id, Access.account(account_id))
    assert job_store.job(job.id).state == "completed"
    assert conversation is not None
    assert conversation.metadata == {"a": "b"}


@pytest.mark.usefixtures("kinds")
def test_prepared_statements_work_after_a_column_is_added(one_connection: Database) -> None:
    # Given a connection that has prepared its statements
    account_id = JobStore(one_connection).create_account()
    for _ in range(ROUNDS):
        run_statements(one_connection, account_id)
    with one_connection.connection() as connection:
        prepared = str(fetch_all(connection, "SELECT statement FROM pg_prepared_statements"))
    assert "started_at = coalesce(started_at, now())" in prepared
    assert "INSERT INTO conversations" in prepared
    # When a migration adds a column to every table
    add_columns(one_connection.dsn, "of_a_still_newer_version")
    # Then the statements work as before
    for _ in range(ROUNDS):
        run_statements(one_connection, account_id)
