"""Fixtures for authentication without HTTP."""

import secrets
from collections.abc import Callable

import pytest

from models.accounts.audit import RequestOrigin
from models.platform.database import Database, fetch_all
from models.platform.ids import new_id
from pipelines.accounts.access_tokens import AccessTokens
from pipelines.accounts.login_limits import LoginLimiter

SECRET = b"a secret of the tests, long enough"


@pytest.fixture
def tokens():
    return AccessTokens(SECRET)


@pytest.fixture
def login_limiter(redis_client):
    return LoginLimiter(redis_client)


@pytest.fixture
def ip():
    """A client address in a network that no other test uses."""
    return f"2001:{secrets.randbelow(65536):x}:{secrets.randbelow(65536):x}::1"


@pytest.fixture
def origin(ip):
    """The origin of a browser's request."""
    return RequestOrigin(ip, "a browser", "req_1")


@pytest.fixture
def address():
    return f"{new_id('test')}@example.com"


@pytest.fixture
def audited(database: Database) -> Callable[[str], list[str]]:
    """`audited(user_id)` → the actions in the audit log of a user, oldest first."""

    def read(user_id: str) -> list[str]:
        statement = "SELECT action FROM audit_events WHERE user_id = %s ORDER BY id"
        with database.connection() as connection:
            return [row["action"] for row in fetch_all(connection, statement, (user_id,))]

    return read
