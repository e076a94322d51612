"""Sangha's own processes as services: web, workers, scheduler."""

import http.client
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg

from models.platform.settings import Settings, variable_name
from ops.logs import CONSOLE_PATTERN

#: Seconds after which a process without a readiness check, such as the scheduler, counts as ready.
READY_AFTER = 0.5


class SanghaProcess:
    """A `sangha …` command as a service. Its jobs are released on the next start if the parent is killed."""

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
        """Note the start."""
        self._started = time.monotonic()

    def command(self) -> list[str]:
        """Return the command, run by the same Python from the same code."""
        return [sys.executable, "-m", "ops", *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """Pass the settings that `up` may have from its command line."""
        overrides = {"data_dir": self.settings.home, "host": self.settings.host, "port": self.settings.port}
        return {variable_name(field): str(value) for field, value in overrides.items()} | {"PYTHONUNBUFFERED": "1"}

    def ready(self, pid: int) -> bool:
        """Return whether the process has run for READY_AFTER seconds."""
        return time.monotonic() - self._started > READY_AFTER

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class WebProcess(SanghaProcess):
    """A web process; ready when GET /readyz answers 200."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("web", settings, ["web"])

    def ready(self, pid: int) -> bool:
        """Return whether GET /readyz answers 200."""
        connection = http.client.HTTPConnection(connectable_host(self.settings.host), self.settings.port, timeout=3)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class WorkerProcess(SanghaProcess):
    """A worker of some pools; ready when it has registered itself."""

    def __init__(self, name: str, settings: Settings, pools: Sequence[str]) -> None:
        super().__init__(name, settings, ["worker", *pools])

    def ready(self, pid: int) -> bool:
        """Return whether the process has a row in `workers`."""
        statement = "SELECT 1 FROM workers WHERE host = %s AND pid = %s"
        try:
            with psycopg.connect(self.settings.postgres_dsn, connect_timeout=2) as connection:
                return connection.execute(statement, (socket.gethostname(), pid)).fetchone() is not None
        except psycopg.Error:
            return False


class SchedulerProcess(SanghaProcess):
    """The scheduler."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("scheduler", settings, ["scheduler"])


def connectable_host(host: str) -> str:
    """Return the address at which this machine can connect to a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
