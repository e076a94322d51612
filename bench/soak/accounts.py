"""The accounts of a run, and the clients that all threads share."""

import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from bench.harness.client import PASSWORD, Address, Client
from models.platform.ids import new_id

#: Seconds that a response may take: more than the web process waits for a worker before it answers with a job.
READ_TIMEOUT = 120.0

#: Seconds that a connection may be idle: less than the server's idle timeout.
IDLE_TIMEOUT = 2.0

#: Seconds after which an account takes new tokens: well before the old ones expire.
REFRESH_AFTER = 600.0


class SoakClient(Client):
    """A client that can use the token of any account."""

    def __init__(self, address: Address) -> None:
        super().__init__(address, timeout=READ_TIMEOUT)
        self.used_at = time.monotonic()

    def use_token(self, token: str) -> None:
        """Send another token from here on."""
        self._headers["Authorization"] = f"Bearer {token}"

    def delete(self, path: str) -> dict[str, Any]:
        """DELETE an object; returns the JSON answer."""
        parsed: dict[str, Any] = orjson.loads(self.request("DELETE", path).read())
        return parsed

    def post_lines(self, path: str, lines: bytes) -> dict[str, Any]:
        """POST JSON Lines; returns the JSON answer."""
        headers = {"Content-Type": "application/x-ndjson"}
        parsed: dict[str, Any] = orjson.loads(self.request("POST", path, lines, headers).read())
        return parsed


class SoakAccount:
    """An account, with the tokens of its owner."""

    def __init__(self, address: Address) -> None:
        self.email = f"{new_id('soak')}@example.com"
        self._lock = threading.Lock()
        client = SoakClient(address)
        self._take_tokens(client.post("/signup", {"email": self.email, "password": PASSWORD}))
        client.close()

    def token(self, client: SoakClient) -> str:
        """Return a valid access token, refreshed in time."""
        with self._lock:
            if time.monotonic() - self._refreshed_at > REFRESH_AFTER:
                self._take_tokens(client.post("/auth/refresh", {"refresh_token": self._refresh_token}))
            return self._token

    def _take_tokens(self, answer: Mapping[str, Any]) -> None:
        self.id: str = answer["account"]["id"]
        self._token: str = answer["token"]
        self._refresh_token: str = answer["refresh_token"]
        self._refreshed_at = time.monotonic()


class SoakAccounts:
    """The accounts of a run, and a pool of clients for all threads."""

    def __init__(self, address: Address, count: int) -> None:
        self.address = address
        self._accounts = [SoakAccount(address) for _ in range(count)]
        self._idle: list[SoakClient] = []
        self._lock = threading.Lock()

    def choose(self, rng: random.Random) -> SoakAccount:
        """Choose an account at random."""
        return rng.choice(self._accounts)

    @contextmanager
    def client(self, account: SoakAccount | None = None) -> Iterator[SoakClient]:
        """Take a client that uses an account's token. Its connection is closed, not reused, after an error."""
        client = self._take()
        try:
            client.use_token(account.token(client) if account else "")
            yield client
        except BaseException:
            client.close()
            raise
        client.used_at = time.monotonic()
        with self._lock:
            self._idle.append(client)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for client in self._idle:
                with suppress(OSError):
                    client.close()
            self._idle.clear()

    def _take(self) -> SoakClient:
        while True:
            with self._lock:
                client = self._idle.pop() if self._idle else None
            if client is None:
                return SoakClient(self.address)
            if time.monotonic() - client.used_at < IDLE_TIMEOUT:
                return client
            client.close()
