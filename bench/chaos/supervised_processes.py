"""The processes of a stack that is broken: killed, frozen, restarted and replaced by another version.

A process that dies unexpectedly is restarted, as `sangha up` and any orchestrator do.
"""

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.processes import SCHEDULERS, WEBS, WORKERS, set_version
from bench.chaos.transcripts import Period
from bench.harness.client import Address
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.processes import (
    START_TIMEOUT,
    ConfiguredProcess,
    ConfiguredWeb,
    ProcessGroup,
    kill_tree,
    release_jobs,
    signal_tree,
)
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Database
from models.platform.errors import SanghaError, Unavailable
from models.platform.migrate import migrate
from models.platform.settings import Settings
from ops.child_process import ChildProcess

#: The prefix of the folder in which logs are kept.
LOGS_PREFIX = "sangha-chaos-logs-"

#: Seconds between two looks at a process that is being replaced.
UPGRADE_INTERVAL = 0.05

#: Seconds before a process that died unexpectedly is restarted.
RESTART_PAUSE = 0.5

#: Seconds between two attempts to release a dead worker's jobs, and before giving up.
RELEASE_INTERVAL, RELEASE_TIMEOUT = 0.25, 60.0

#: Seconds after its end for which a tree of jobs stays in `jobs`: longer than a client repeats its request.
MOVED_AFTER = 45.0


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker that was killed, frozen for longer than its lease, or died, by time.time."""

    name: str
    at: float


class SupervisedProcesses:
    """All processes, by name. They live as long as the thread that started them.

    settings      lead to the servers directly, whatever disturbs the processes' own connections
    endpoint      where turns spill to; None: the run has none
    previous      the folder of the version with which the run begins, until the upgrade is finalized
    restarts      descriptions of unexpected deaths
    deaths        of workers, expected or not
    lost_commits  periods whose commits a promoted standby lacks
    killed        processes that a fault has killed, and that only the fault starts again
    stopping      processes that a fault has asked to end, and that are started again as soon as they have
    """

    #: Workers whose jobs are released as soon as they have died. The others die with their supervisor.
    supervised: Sequence[str] = ()

    def __init__(
        self,
        processes: ProcessGroup,
        settings: Settings,
        previous: Path | None = None,
        endpoint: ScriptedEndpoint | None = None,
    ) -> None:
        self.processes = processes
        self.settings = settings
        self.previous = previous
        self.endpoint = endpoint
        self.children = processes.children
        self.restarts: list[str] = []
        self.deaths: list[WorkerDeath] = []
        self.lost_commits: list[Period] = []
        self.killed: set[str] = set()
        self.stopping: set[str] = set()
        self.database = Database(settings.postgres_dsn, size=2, name="chaos")

    @property
    def folder(self) -> Path:
        """Where the servers' data is."""
        return self.processes.folder

    @property
    def addresses(self) -> Sequence[Address]:
        """The addresses at which clients reach the platform: those of the web processes."""
        return list(self.web_addresses.values())

    @property
    def web_addresses(self) -> Mapping[str, Address]:
        """The addresses of the web processes, by name."""
        services = [self.children[name].service for name in WEBS]
        webs = [each for each in services if isinstance(each, ConfiguredWeb)]
        return {each.name: (each.settings.host, each.settings.port) for each in webs}

    @property
    def metrics_addresses(self) -> Mapping[str, Address]:
        """The addresses at which the web processes serve their metrics, by name."""
        return self.web_addresses

    @property
    def rabbitmqctl(self) -> Callable[..., str] | None:
        """Run `rabbitmqctl`, where RabbitMQ is the broker."""
        return None

    @property
    def pids(self) -> Mapping[str, int]:
        """The pid of each of Sangha's processes."""
        return {name: self.children[name].pid for name in (*WEBS, *self.workers, *SCHEDULERS)}

    @property
    def workers(self) -> Sequence[str]:
        """The names of the workers."""
        return WORKERS

    def wait_ready(self, names: Iterable[str]) -> None:
        """Wait until processes are ready. Raises Unavailable with the last log line of one that is not."""
        for name in names:
            self.children[name].wait_ready(START_TIMEOUT)

    def kill(self, name: str) -> None:
        """Kill a process. It is not restarted until `start`."""
        self.killed.add(name)
        self._record_death(name)
        child = self.children[name]
        if name.startswith("postgres"):
            kill_tree(child.pid)
        child.kill()
        child.clear()
        self._release_jobs(child)

    def start(self, name: str) -> None:
        """Start a process that has ended."""
        child = self.children[name]
        child.clear()
        child.start()
        self.killed.discard(name)

    def terminate(self, name: str) -> None:
        """Ask a process to end, as a deployment does; it is started again when it has."""
        self.stopping.add(name)
        self.children[name].signal(self.children[name].service.stop_signal)

    def freeze(self, name: str) -> None:
        """Stop a process and its descendants with SIGSTOP."""
        self._record_death(name)
        signal_tree(self.children[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Continue a frozen process."""
        signal_tree(self.children[name].pid, signal.SIGCONT)

    def supervise(self) -> None:
        """Start processes again that a deployment ended, or that died unexpectedly."""
        for name, child in list(self.children.items()):
            if child.running or name in self.killed:
                continue
            if name in self.stopping and child.exit_code in (0, -signal.SIGTERM):  # perhaps before it was ready
                self.stopping.discard(name)
                self.start(name)
            elif time.monotonic() - child.started > RESTART_PAUSE:
                self._restart(child)

    def upgrade(self) -> None:
        """Migrate the database, and replace the processes of the previous version one after the other."""
        migrate(self.settings.postgres_dsn)
        self._keep_memories_of_keys()
        self._start_new_processes()
        self.roll((*SCHEDULERS, *WEBS, *WORKERS))

    def roll(self, names: Iterable[str]) -> None:
        """Replace processes one after the other by those of this version, as a rolling deployment does."""
        for name in names:
            self.run_code(name, None)
            while name in self.stopping or not self.children[name].ready():
                self.supervise()
                time.sleep(UPGRADE_INTERVAL)

    def finalize_upgrade(self) -> bool:
        """Finalize the upgrade, after which the previous version may not run. Returns whether that was possible."""
        try:
            migrate(self.settings.postgres_dsn, finalize_upgrade=True)
        except SanghaError:
            return False
        self.previous = None
        return True

    def run_code(self, name: str, code: Path | None) -> None:
        """Replace a process by one of another version, as a deployment does; None: of this one."""
        service = self.children[name].service
        assert isinstance(service, ConfiguredProcess)
        set_version(service, code)
        self.terminate(name)

    def move_ended_jobs(self) -> None:
        """Let a worker move the trees that ended MOVED_AFTER seconds ago, as it does after days.

        Not where processes of the previous version run, which have no actor for it.
        """
        if self.previous is None:
            job = NewJob("maintenance.archive_jobs", PLATFORM_ACCOUNT, {"age_seconds": MOVED_AFTER})
            with contextlib.suppress(Unavailable), self.database.transaction() as connection:
                enqueue(connection, job)

    def keep_logs(self) -> Path:
        """Copy all logs to a folder that is kept."""
        return Path(shutil.copytree(self.folder / "logs", tempfile.mkdtemp(prefix=LOGS_PREFIX), dirs_exist_ok=True))

    def _start_new_processes(self) -> None:
        """Start the processes that the previous version does not have."""

    def _keep_memories_of_keys(self) -> None:
        """Let the keys that the previous version made use their owner's memories, as they did."""
        with self.database.connection() as connection:
            connection.execute("UPDATE api_keys SET memory = 'owner'")

    def _restart(self, child: ChildProcess) -> None:
        self.stopping.discard(child.name)
        self._record_death(child.name)
        self.restarts.append(f"{child.name} ended with {child.exit_code}: {child.log.last_line()}")
        self._release_jobs(child)
        with contextlib.suppress(SanghaError, OSError):
            self.start(child.name)

    def _record_death(self, name: str) -> None:
        if name in self.workers:
            self.deaths.append(WorkerDeath(name, time.time()))

    def _release_jobs(self, child: ChildProcess) -> None:
        """Release a dead worker's jobs as `sangha up` does; those of other workers wait for the end of its lease."""
        if child.name in self.supervised:
            threading.Thread(target=self._release_with_retries, args=[child.pid], daemon=True).start()

    def _release_with_retries(self, pid: int) -> None:
        deadline = time.monotonic() + RELEASE_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                release_jobs(self.database, pid)
                return
            time.sleep(RELEASE_INTERVAL)
