"""Fixtures with a database of the module's own."""

import pytest

from tests.models.conftest import Desk, empty_desk, kinds, own_database

__all__ = ["empty_desk", "kinds", "own_database"]


@pytest.fixture
def desk(empty_desk: Desk) -> Desk:
    """An empty database."""
    return empty_desk
