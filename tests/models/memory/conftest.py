"""Owners of memories."""

from collections.abc import Iterator

import pytest

from models.platform.database import Database
from models.platform.ids import new_id


@pytest.fixture
def owner(database: Database) -> Iterator[tuple[str, str]]:
    """The ids of an account and a user, which are deleted afterwards."""
    account_id, user_id = new_id("acct"), new_id("user")
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'a test')", (account_id,))
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
    yield account_id, user_id
    with database.transaction() as connection:
        connection.execute("DELETE FROM accounts WHERE id = %s", (account_id,))
        connection.execute("DELETE FROM users WHERE id = %s", (user_id,))
