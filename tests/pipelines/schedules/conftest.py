"""Fixtures with a database of the module's own, in which no other schedule is due."""

import pytest

from models.accounts import accounts
from models.accounts.accounts import Membership
from models.platform.ids import new_id
from tests.models.conftest import JobStore, empty_job_store, kinds, own_database

__all__ = ["empty_job_store", "kinds", "own_database"]


@pytest.fixture
def job_store(empty_job_store: JobStore) -> JobStore:
    """An empty database."""
    return empty_job_store


@pytest.fixture
def member(job_store: JobStore) -> Membership:
    """A user with an account."""
    with job_store.database.transaction() as connection:
        return accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
