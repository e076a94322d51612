"""Fixtures with a database of the module's own, in which no other schedule is due."""

import pytest

from models.accounts import accounts
from models.accounts.accounts import Membership
from models.platform.ids import new_id
from tests.models.conftest import Desk, empty_desk, kinds, own_database

__all__ = ["empty_desk", "kinds", "own_database"]


@pytest.fixture
def desk(empty_desk: Desk) -> Desk:
    """An empty database."""
    return empty_desk


@pytest.fixture
def member(desk: Desk) -> Membership:
    """A user with an account."""
    with desk.database.transaction() as connection:
        return accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
