"""Fixtures for tests of the memory."""

import pytest

from models.platform.database import Database
from models.platform.ids import new_id


@pytest.fixture
def owner(database: Database, account: str) -> tuple[str, str]:
    """The ids of an account and of a user."""
    user_id = new_id("user")
    with database.connection() as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user_id, f"{user_id}@example.com"))
    return account, user_id
