"""A database of the module's own, as the tests of the records have it."""

import pytest

from tests.models.conftest import Desk, empty_desk, kinds, own_database

__all__ = ["empty_desk", "kinds", "own_database"]


@pytest.fixture
def desk(empty_desk: Desk) -> Desk:
    """A database with nothing in it."""
    return empty_desk
