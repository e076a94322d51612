"""Release the jobs of a dead worker at once, so that another worker takes them over without waiting for a lease.

The connections stay open: opening them would take longer than the release, while an answer has stopped in mid-sentence.
"""

import queue
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from dramatiq.errors import BrokerError
from redis import RedisError

from models.jobs.outbox import BATCH
from models.jobs.workers import release_jobs_of_dead_worker
from models.platform.database import Database
from models.platform.errors import SanghaError
from models.platform.settings import Settings
from tasks.broker import build_broker
from tasks.relay import KEEP_ALIVE_INTERVAL, Relay

#: Seconds for which a release is retried while the database is down; after that the leases expire by themselves.
RETRY_TIMEOUT = 60.0

#: Seconds between two tries.
RETRY_INTERVAL = 0.2

#: Seconds to wait for the thread when closing.
CLOSE_TIMEOUT = 2.0


class DeadWorkerReleaser:
    """Releases jobs by the pid of their worker; `print_line` writes a line to the console."""

    def __init__(self, settings: Settings, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
        self._database = Database.open(settings, size=1, name="dead-worker-releaser")
        self._broker = build_broker(settings.broker_address)
        self._relay = Relay(self._database, self._broker)
        self._lanes: queue.Queue[Collection[str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="releaser", daemon=True)
        self._thread.start()

    def release(self, pid: int) -> None:
        """Release the jobs of a dead process, retrying while the database is down: it may have died first."""
        deadline = time.monotonic() + RETRY_TIMEOUT
        while self._thread.is_alive() and not self._try_release(pid) and time.monotonic() < deadline:
            time.sleep(RETRY_INTERVAL)

    def release_last_run(self, run_folder: Path) -> None:
        """Release the jobs of the workers whose pid files the last run left behind: they died with it."""
        for pid_file in run_folder.glob("worker*.pid"):
            pid = pid_file.read_text().strip()
            if pid.isdigit():
                self.release(int(pid))
            pid_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connections."""
        self._lanes.put(None)
        self._thread.join(CLOSE_TIMEOUT)
        self._database.close()

    def _try_release(self, pid: int) -> bool:
        try:
            released = release_jobs_of_dead_worker(self._database, socket.gethostname(), pid)
        except SanghaError:
            return False
        self._lanes.put(released.lanes)
        if released.running:
            self._print_line(f"  released {released.running} jobs of the dead worker {pid}")
        return True

    def _run(self) -> None:
        """Publish released jobs. A thread of its own, since a connection to the broker belongs to one thread."""
        while True:
            try:
                lanes = self._lanes.get(timeout=KEEP_ALIVE_INTERVAL)
            except queue.Empty:
                with suppress(BrokerError, RedisError, OSError):
                    self._broker.keep_alive()
                continue
            if lanes is None:
                self._broker.close()
                return
            self._publish(lanes)

    def _publish(self, lanes: Collection[str]) -> None:
        """Publish the due jobs of some lanes; where that fails the sweeper does it within a second."""
        with suppress(SanghaError, BrokerError, RedisError, OSError):
            while self._relay.publish_lanes(lanes) == BATCH:
                pass
