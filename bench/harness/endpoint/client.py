"""Start the endpoint as a child process, change its behaviour, and read its book."""

import http.client
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from bench.harness.client import Address
from bench.harness.endpoint.book import BookedRequest, parse_book
from bench.harness.processes import START_TIMEOUT, ProcessGroup
from bench.harness.sse import CheckFailed
from ops.rabbitmq import free_ports

HOST, TIMEOUT = "127.0.0.1", 10.0


class ScriptedEndpoint:
    """The endpoint as a service, and its control."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, name: str = "endpoint") -> None:
        self.name = name
        self.port, self.control_port = free_ports(2)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return HOST, self.port

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return f"http://{HOST}:{self.port}/v1"

    def prepare(self) -> None:
        """Do nothing."""

    def command(self) -> list[str]:
        """See `bench.harness.endpoint.server`."""
        return [sys.executable, "-m", "bench.harness.endpoint.server", str(self.port), str(self.control_port)]

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether its control port answers."""
        try:
            return bool(self._request("GET", "/behaviour"))
        except (OSError, http.client.HTTPException):
            return False

    def close(self) -> None:
        """Do nothing."""

    def change(self, **changes: Any) -> None:
        """Change the behaviour of requests from now on. See `Behaviour`."""
        self._request("PATCH", "/behaviour", orjson.dumps(changes))

    def heal(self) -> None:
        """End the fault."""
        self.change(fault="none", after=0, times=0, retry_after=0.0)

    def book(self, after: int = 0) -> Sequence[BookedRequest]:
        """Return all requests after a number."""
        return parse_book(self._request("GET", f"/book?after={after}"))

    def _request(self, method: str, path: str, body: bytes | None = None) -> Any:
        with closing(http.client.HTTPConnection(HOST, self.control_port, timeout=TIMEOUT)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            parsed = orjson.loads(response.read())
        if response.status != 200:
            raise CheckFailed(f"the scripted endpoint answered {method} {path} with {parsed}")
        return parsed


@contextmanager
def scripted_endpoint(**behaviour: Any) -> Iterator[ScriptedEndpoint]:
    """Run an endpoint, in a process and a folder of its own, until the end of the block."""
    with TemporaryDirectory(prefix="sangha-endpoint-") as folder:
        group, service = ProcessGroup(Path(folder)), ScriptedEndpoint()
        child = group.launch(service)
        try:
            child.wait_ready(START_TIMEOUT)
            service.change(**behaviour)
            yield service
        finally:
            group.stop(child)
