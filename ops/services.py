"""Sangha's own processes as parts that a supervisor can run: web, workers, scheduler."""

import http.client
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg

from models.platform.settings import Settings, variable
from ops.logs import CONSOLE_PATTERN

#: The scheduler has nothing to ask it by: it counts as ready when it has lived this long.
SETTLED = 0.5


class SanghaProcess:
    """`sangha …` as a child. If its parent is killed it is killed too: what it held is given back on the next start."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = CONSOLE_PATTERN

    def __init__(self, name: str, settings: Settings, arguments: Sequence[str]) -> None:
        self.name = name
        self.settings = settings
        self.arguments = arguments
        self._started = 0.0

    def prepare(self) -> None:
        """Nothing has to be made."""
        self._started = time.monotonic()

    def command(self) -> list[str]:
        """The same Python, the same code."""
        return [sys.executable, "-m", "ops", *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """What `up` was told on its command line, as the environment of its children."""
        given = {"data_dir": self.settings.home, "host": self.settings.host, "port": self.settings.port}
        return {variable(field): str(value) for field, value in given.items()} | {"PYTHONUNBUFFERED": "1"}

    def ready(self, pid: int) -> bool:
        """Whether it has lived for a moment."""
        return time.monotonic() - self._started > SETTLED

    def close(self) -> None:
        """Nothing is left to end."""


class WebProcess(SanghaProcess):
    """The HTTP door; ready when /readyz says so."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("web", settings, ["web"])

    def ready(self, pid: int) -> bool:
        """Whether it says that all it needs works."""
        connection = http.client.HTTPConnection(connectable_host(self.settings.host), self.settings.port, timeout=3)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class WorkerProcess(SanghaProcess):
    """A worker of some pools; ready when it has put itself on the list of workers."""

    def __init__(self, name: str, settings: Settings, pools: Sequence[str]) -> None:
        super().__init__(name, settings, ["worker", *pools])

    def ready(self, pid: int) -> bool:
        """Whether its row is there."""
        found = "SELECT 1 FROM workers WHERE host = %s AND pid = %s"
        try:
            with psycopg.connect(self.settings.postgres_dsn, connect_timeout=2) as connection:
                return connection.execute(found, (socket.gethostname(), pid)).fetchone() is not None
        except psycopg.Error:
            return False


class SchedulerProcess(SanghaProcess):
    """The clock."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("scheduler", settings, ["scheduler"])


def connectable_host(host: str) -> str:
    """The address by which this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - the answer to it
