"""Run the server of the package `llmock`, written by others, as an endpoint, and script its next answers."""

import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.harness.processes import START_TIMEOUT, ProcessGroup
from ops.rabbitmq import free_ports


class OtherServer:
    """The server as a service, and its control."""

    name = "llmock"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self) -> None:
        self.origin = f"http://127.0.0.1:{free_ports(1)[0]}"

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return f"{self.origin}/v1"

    def prepare(self) -> None:
        """Do nothing."""

    def command(self) -> list[str]:
        """Serve without an access log."""
        port = self.origin.rpartition(":")[2]
        return [sys.executable, "-m", "llmock.cli", "serve", "--port", port, "--log-level", "warning"]

    def environment(self) -> Mapping[str, str]:
        """Return no variables."""
        return {}

    def ready(self, pid: int) -> bool:
        """Return whether it answers."""
        try:
            return httpx.get(f"{self.origin}/health", timeout=10).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Do nothing."""

    def script(self, type_: str, **behavior: Any) -> None:
        """Change its answer to the next request, or the next that streams."""
        self._post("/scenario", {"behaviors": [{"type": type_, **behavior}]})

    def reset(self) -> None:
        """Forget all requests and what was scripted."""
        self._post("/reset", {})

    def requests(self) -> Sequence[Mapping[str, Any]]:
        """Return the requests that were answered, oldest first."""
        return httpx.get(f"{self.origin}/_llmock/requests", timeout=10).raise_for_status().json()["requests"]

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        httpx.post(f"{self.origin}/_llmock{path}", json=body, timeout=10).raise_for_status()


@contextmanager
def running_other_server(folder: Path) -> Iterator[OtherServer]:
    """Run the server until the end of the block."""
    group, service = ProcessGroup(folder), OtherServer()
    child = group.launch(service)
    try:
        child.wait_ready(START_TIMEOUT)
        yield service
    finally:
        group.stop(child)
