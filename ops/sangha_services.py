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

from models.jobs.workers import SILENCE_LIMIT
from models.platform.settings import Settings, variable_name
from ops.logs import CONSOLE_PATTERN
from ops.web_connection import request_status
from scheduler.liveness import liveness_file

#: Seconds after which a process without a readiness check, such as the scheduler, counts as ready.
READY_AFTER = 0.5


RECENT_HEARTBEAT = """
SELECT 1 FROM workers
WHERE host = %(host)s AND pid = %(pid)s AND seen_at > now() - make_interval(secs => %(seconds)s)
"""


class SanghaProcess:
    """A `sangha …` command as a service. Its jobs are released on the next start if the parent is killed."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = CONSOLE_PATTERN
    #: The processes share one address: the web process serves the metrics of all.
    metrics_address: str | None = None

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
        overrides |= {"metrics_address": self.metrics_address or ""}
        models = {field: getattr(self.settings, field) for field in ("model", "model_name", "default_model")}
        overrides |= {field: value for field, value in models.items() if value is not None}
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
        self.metrics_address = settings.metrics_address

    def ready(self, pid: int) -> bool:
        """Return whether GET /readyz answers 200."""
        return self._get("/readyz") == 200

    def responds(self, pid: int) -> bool:
        """Return whether GET /healthz is answered, whatever the answer."""
        return self._get("/healthz") is not None

    def _get(self, path: str) -> int | None:
        """Return the status of an answer, or None without one."""
        try:
            return request_status(self.settings, path, timeout=3)
        except (OSError, http.client.HTTPException):
            return None


class WorkerProcess(SanghaProcess):
    """A worker of some pools; ready when it has registered itself."""

    def __init__(self, name: str, settings: Settings, pools: Sequence[str], options: Sequence[str] = ()) -> None:
        super().__init__(name, settings, ["worker", *pools, *options])

    def ready(self, pid: int) -> bool:
        """Return whether the process has a row in `workers`."""
        return bool(self._has_row("SELECT 1 FROM workers WHERE host = %(host)s AND pid = %(pid)s", pid))

    def responds(self, pid: int) -> bool:
        """Return whether the process has renewed its lease lately; True where the database is unavailable."""
        return self._has_row(RECENT_HEARTBEAT, pid) is not False

    def _has_row(self, statement: str, pid: int) -> bool | None:
        """Return whether the statement finds a row, or None if the database is unavailable."""
        parameters = {"host": socket.gethostname(), "pid": pid, "seconds": SILENCE_LIMIT}
        try:
            with psycopg.connect(self.settings.postgres_dsn, connect_timeout=2) as connection:
                return connection.execute(statement, parameters).fetchone() is not None
        except psycopg.Error:
            return None


class SchedulerProcess(SanghaProcess):
    """The scheduler."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("scheduler", settings, ["scheduler"])
        self._last_pass: int | None = None

    def responds(self, pid: int) -> bool:
        """Return whether the sweeper has ended a pass since the last call."""
        try:
            last_pass = liveness_file(self.settings).stat().st_mtime_ns
        except OSError:
            return False
        responds = last_pass != self._last_pass
        self._last_pass = last_pass
        return responds
