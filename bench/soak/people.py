"""Who speaks: accounts with people in them, and the connections that they share."""

import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from bench.client import Address, Client
from models.platform.ids import new_id

PASSWORD = "correct horse battery staple"

#: Seconds that an answer may take: more than the door itself waits for a worker before it answers with a job.
PATIENCE = 120.0

#: Seconds that a connection may stand unused: before the server closes it as idle.
FRESH = 2.0

#: Seconds after which a person takes new tokens: well before the old ones end.
RENEWED = 600.0


class Visitor(Client):
    """One connection that speaks for whoever has it, and can say what the soak needs beside turns."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._connection.timeout = PATIENCE
        self.used = time.monotonic()

    def speak_for(self, token: str) -> None:
        """Show another token from here on."""
        self._headers["Authorization"] = f"Bearer {token}"

    def delete(self, path: str) -> dict[str, Any]:
        """Delete something; what the door says to that."""
        parsed: dict[str, Any] = orjson.loads(self._request("DELETE", path).read())
        return parsed

    def post_once(self, path: str, body: Mapping[str, Any], *, key: str) -> dict[str, Any]:
        """A request under an Idempotency-Key."""
        self._headers["Idempotency-Key"] = key
        try:
            return self.post(path, body)
        finally:
            del self._headers["Idempotency-Key"]

    def bring(self, path: str, lines: bytes) -> dict[str, Any]:
        """A body of JSON Lines."""
        self._headers["Content-Type"] = "application/x-ndjson"
        try:
            parsed: dict[str, Any] = orjson.loads(self._request("POST", path, lines).read())
        finally:
            self._headers["Content-Type"] = "application/json"
        return parsed


class Person:
    """An account's owner, with the tokens that are good now."""

    def __init__(self, address: Address) -> None:
        self.email = f"{new_id('soak')}@example.com"
        self._guard = threading.Lock()
        visitor = Visitor(address)
        self._enter(visitor.post("/signup", {"email": self.email, "password": PASSWORD}))
        visitor.close()

    def token(self, visitor: Visitor) -> str:
        """An access token, renewed in time."""
        with self._guard:
            if time.monotonic() - self._since > RENEWED:
                self._enter(visitor.post("/auth/refresh", {"refresh_token": self._refresh}))
            return self._token

    def _enter(self, entered: Mapping[str, Any]) -> None:
        self.account_id: str = entered["account"]["id"]
        self._token: str = entered["token"]
        self._refresh: str = entered["refresh_token"]
        self._since = time.monotonic()


class People:
    """The accounts of a run, and a pool of connections for all threads."""

    def __init__(self, address: Address, count: int) -> None:
        self.address = address
        self._persons = [Person(address) for _ in range(count)]
        self._idle: list[Visitor] = []
        self._guard = threading.Lock()

    def any(self, chance: random.Random) -> Person:
        """One of them."""
        return chance.choice(self._persons)

    @contextmanager
    def visitor(self, person: Person | None = None) -> Iterator[Visitor]:
        """A connection that speaks for a person. One that is left in mid-answer or by an error is closed."""
        visitor = self._take()
        try:
            visitor.speak_for(person.token(visitor) if person else "")
            yield visitor
        except BaseException:
            visitor.close()
            raise
        visitor.used = time.monotonic()
        with self._guard:
            self._idle.append(visitor)

    def close(self) -> None:
        """Close what is idle."""
        with self._guard:
            for visitor in self._idle:
                with suppress(OSError):
                    visitor.close()
            self._idle.clear()

    def _take(self) -> Visitor:
        while True:
            with self._guard:
                visitor = self._idle.pop() if self._idle else None
            if visitor is None:
                return Visitor(self.address)
            if time.monotonic() - visitor.used < FRESH:
                return visitor
            visitor.close()
