"""Release the jobs of a dead worker at once, so that another worker takes them over without waiting for a lease."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dramatiq.errors import BrokerError
from redis import RedisError

from models.jobs.workers import release_jobs_of_dead_worker
from models.platform.database import Database
from models.platform.errors import SanghaError
from models.platform.settings import Settings
from tasks.broker import build_broker
from tasks.relay import Relay

#: Seconds for which a release is retried while the database is down; after that the leases expire by themselves.
RETRY_TIMEOUT = 60.0

#: Seconds between two tries.
RETRY_INTERVAL = 0.2


class DeadWorkerReleaser:
    """Releases jobs by the pid of their worker; `print_line` writes a line to the console."""

    def __init__(self, settings: Settings, print_line: Callable[[str], None]) -> None:
        self._settings = settings
        self._print_line = print_line

    def release(self, pid: int) -> None:
        """Release the jobs of a dead process, retrying while the database is down: it may have died first."""
        database = Database.open(self._settings, size=1, name="dead-worker-releaser")
        deadline = time.monotonic() + RETRY_TIMEOUT
        try:
            while not self._try_release(database, pid) and time.monotonic() < deadline:
                time.sleep(RETRY_INTERVAL)
        finally:
            database.close()

    def release_last_run(self, run_folder: Path) -> None:
        """Release the jobs of the workers whose pid files the last run left behind: they died with it."""
        for pid_file in run_folder.glob("worker*.pid"):
            pid = pid_file.read_text().strip()
            if pid.isdigit():
                self.release(int(pid))
            pid_file.unlink(missing_ok=True)

    def _try_release(self, database: Database, pid: int) -> bool:
        try:
            released = release_jobs_of_dead_worker(database, socket.gethostname(), pid)
        except SanghaError:
            return False
        if released:
            self._print_line(f"  released {released} jobs of the dead worker {pid}")
        self._publish(database)
        return True

    def _publish(self, database: Database) -> None:
        """Publish the released jobs; where that fails the sweeper does it within a second."""
        broker = build_broker(self._settings.broker_address)
        with suppress(SanghaError, BrokerError, RedisError, OSError):
            Relay(database, broker).publish_all()
        broker.close()
