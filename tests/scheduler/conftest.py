"""Fixtures with a database of the module's own."""

import pytest

from tests.models.conftest import JobStore, empty_job_store, kinds, own_database

__all__ = ["empty_job_store", "kinds", "own_database"]


@pytest.fixture
def job_store(empty_job_store: JobStore) -> JobStore:
    """An empty database."""
    return empty_job_store
