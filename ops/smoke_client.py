"""The HTTP client of `sangha smoke`: requests with a time limit per step, and the id of the last one."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Self

import httpx2

from ops.version import version


class StepFailed(Exception):
    """The installation did not do what a step expects."""


class SmokeClient:
    """Sends the requests of all steps, and remembers what they made.

    url      base URL of the installation
    timeout  seconds for all requests of a step
    """

    def __init__(self, url: str, *, model: str, timeout: float) -> None:
        self.model = model
        self.space = f"smoke-{uuid.uuid4().hex}"
        self.email = ""
        self.response_ids: list[str] = []
        self.file_ids: list[str] = []
        self.request_id: str | None = None
        self.last_call = ""
        self._timeout = timeout
        self._deadline = 0.0
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers={"user-agent": f"sangha-smoke/{version()}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def authenticated(self) -> bool:
        """Whether requests have credentials."""
        return "authorization" in self._http.headers

    def authenticate(self, token: str) -> None:
        """Send a key or token with every request from now on."""
        self._http.headers["authorization"] = f"Bearer {token}"

    def begin_step(self) -> None:
        """Give the next requests together the time of a step."""
        self._deadline = time.monotonic() + self._timeout
        self.request_id, self.last_call = None, "before a request"

    def remaining(self) -> float:
        """Return the seconds that are left for the step. Raises StepFailed."""
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise StepFailed(f"{self.last_call}: not done within {self._timeout:g} s")
        return remaining

    def call(self, method: str, path: str, *, expect: int = 200, **options: Any) -> httpx2.Response:
        """Send a request. Raises StepFailed for another status than the expected one."""
        self._begin_call(method, path)
        response = self._http.request(method, path, timeout=self.remaining(), **options)
        self._check(response, expect)
        return response

    def events(self, method: str, path: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream as they arrive. Close the iterator to disconnect. Raises StepFailed."""
        self._begin_call(method, path)
        with self._http.stream(method, path, timeout=self.remaining(), **options) as response:
            if response.status_code != 200:
                response.read()
            self._check(response, 200)
            for line in response.iter_lines():
                self.remaining()
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))

    def _begin_call(self, method: str, path: str) -> None:
        self.request_id, self.last_call = None, f"{method} {path.partition('?')[0]}"

    def _check(self, response: httpx2.Response, expected: int) -> None:
        self.request_id = response.headers.get("x-request-id")
        if response.status_code != expected:
            text = " ".join(response.text.split())[:300]
            raise StepFailed(f"{self.last_call}: status {response.status_code}, expected {expected}: {text}")
