"""People who call the whole door, with real servers and no worker behind it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from models import accounts
from models.accounts import Caller, Role
from models.database import Database
from models.ids import new_id
from models.settings import Settings
from tests.web.conftest import running
from web.app import build


@contextmanager
def whole_door(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the application. Its queue is its own, so that no worker of another test takes what it asks for."""
    app = build(settings.model_copy(update={"broker_url": f"{settings.redis_address}?db=9"}))
    with running(app) as (_, client):
        client.app = app  # type: ignore[attr-defined]
        yield client


class Visitor:
    """Somebody with an account and a token."""

    def __init__(self, door: httpx.Client, database: Database) -> None:
        with database.transaction() as connection:
            member = accounts.create(connection, email=f"{new_id('me')}@example.com", password_hash=None)
        self.door = door
        self.database = database
        self.caller = Caller(member.user_id, member.account_id, Role.OWNER)
        self.token = door.app.state.platform.tokens.issue(self.caller)  # type: ignore[attr-defined]

    def request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any):
        """One request."""
        sent = {"authorization": f"Bearer {self.token}", **(headers or {})}
        return self.door.request(method, path, headers=sent, **options)

    def ask(self, **body: Any) -> dict[str, Any]:
        """A turn in the background."""
        answer = self.request("POST", "/v1/responses", json={"input": "hello", "background": True, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def leave(self) -> None:
        """Nothing that was asked for stays behind."""
        with self.database.connection() as connection:
            connection.execute("DELETE FROM accounts WHERE id = %s", (self.caller.account_id,))


def refused(answer: httpx.Response, status: int, *, param: str | None = None, code: str | None = None) -> str:
    """The message of a refusal in the one envelope, which names what is wrong and shows nothing of our insides."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])
