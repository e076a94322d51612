"""The stack that is broken: servers and Sangha's processes as children, in one temporary folder.

A process that dies unexpectedly is restarted, as `sangha up` and any orchestrator do.
"""

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from bench.chaos import previous
from bench.chaos.processes import (
    ENDPOINT,
    SCHEDULERS,
    SERVERS,
    UPSTREAM,
    WEBS,
    WORKERS,
    open_links,
    postgres_socket,
    sangha_processes,
    set_version,
    upstream_worker,
)
from bench.chaos.proxy import Link, Links
from bench.chaos.spilling import endpoint_settings, start_endpoint
from bench.chaos.standby import Standby, lose_commits, promote, wait_for_replication
from bench.chaos.transcripts import SCRIPT, Period
from bench.harness.client import Address
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.processes import (
    START_TIMEOUT,
    ConfiguredProcess,
    ConfiguredWeb,
    kill_tree,
    release_jobs,
    signal_tree,
)
from bench.harness.stack import BrokerName, Servers, temporary_servers
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Database
from models.platform.errors import SanghaError, Unavailable
from models.platform.migrate import migrate
from ops.child_process import ChildProcess

#: Slots of each engine: too few for all clients, so that some turns always wait.
SLOTS = 4

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

#: Workers whose jobs are released as soon as they have died. The other one dies with its supervisor.
SUPERVISED = ("inference-a", "light")


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker that was killed, frozen for longer than its lease, or died, by time.time."""

    name: str
    at: float


class ChaosStack:
    """All processes and links, by name. Processes live as long as the thread that made it.

    endpoint      where turns spill to; None: the run has none
    restarts      descriptions of unexpected deaths
    deaths        of workers, expected or not
    lost_commits  periods whose commits a promoted standby lacks
    killed        processes that a fault has killed, and that only the fault starts again
    stopping      processes that a fault has asked to end, and that are started again as soon as they have
    """

    def __init__(
        self,
        servers: Servers,
        broker: BrokerName,
        slots: int,
        links: Links,
        previous: Path | None = None,
        endpoint: ScriptedEndpoint | None = None,
    ) -> None:
        self.servers = servers
        self.endpoint = endpoint
        self.previous = previous
        self.direct_link = links.open("direct", postgres_socket(servers.postgres))
        self.lost_commits: list[Period] = []
        self._links = links
        self._standbys = count(1)
        self.broker = broker
        self.children = servers.children
        self.links: dict[str, Link] = {}
        self.restarts: list[str] = []
        self.deaths: list[WorkerDeath] = []
        self.killed: set[str] = set()
        self.stopping: set[str] = set()
        changes = {"engine": "scripted", "script": SCRIPT, "slots": slots, "reflection": "on", "reflection_calls": 2,
                   "egress_allow": ("127.0.0.1",), **(endpoint_settings(endpoint) if endpoint else {})}  # fmt: skip
        # All clients have the same IP address.
        direct = f"postgresql://postgres@127.0.0.1:{self.direct_link.port}/sangha"
        self.settings = servers.settings(broker, **changes, visits_per_minute=1_000_000, database_url=direct)
        self.database = Database(self.settings.postgres_dsn, size=2, name="chaos")

    @property
    def folder(self) -> Path:
        """Where the servers' data is."""
        return self.servers.folder

    @property
    def addresses(self) -> list[Address]:
        """The addresses of the web processes."""
        services = [self.children[name].service for name in WEBS]
        return [(each.settings.host, each.settings.port) for each in services if isinstance(each, ConfiguredWeb)]

    @property
    def rabbitmqctl(self) -> Callable[..., str] | None:
        """Run `rabbitmqctl`, where RabbitMQ is the broker."""
        return self.servers.rabbitmq.rabbitmqctl if self.broker == "rabbitmq" else None

    @property
    def pids(self) -> Mapping[str, int]:
        """The pid of each of Sangha's processes."""
        return {name: self.children[name].pid for name in (*WEBS, *self.workers, *SCHEDULERS)}

    @property
    def workers(self) -> Sequence[str]:
        """The names of the workers."""
        return WORKERS if self.endpoint is None else (*WORKERS, UPSTREAM)

    def start_all(self) -> None:
        """Open the links, and start Sangha's processes. Raises Unavailable."""
        self.links.update(open_links(self._links, self.servers, self.broker))
        self.servers.start(*sangha_processes(self.settings, self.links, self.previous))
        if self.previous is None:
            self._start_upstream_worker()

    def wait_ready(self, names: Iterable[str]) -> None:
        """Wait until processes are ready. Raises Unavailable with the last log line of one that is not."""
        for name in names:
            self.children[name].wait_ready(START_TIMEOUT)

    def kill(self, name: str) -> None:
        """Kill a process. It is not restarted until `start`."""
        self.killed.add(name)
        self._record_death(name)
        child = self.children[name]
        if name == "postgres":
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

    def upgrade(self) -> None:
        """Migrate the database, and replace the processes of the previous version one after the other."""
        migrate(self.servers.postgres.dsn)
        self._keep_memories_of_keys()
        self._start_upstream_worker()
        for name in (*SCHEDULERS, *WEBS, *WORKERS):
            self.run_code(name, None)
            while name in self.stopping or not self.children[name].ready():
                self.supervise()
                time.sleep(UPGRADE_INTERVAL)

    def _start_upstream_worker(self) -> None:
        """Start the worker that asks the endpoint, once the tables that it needs exist."""
        if self.endpoint is not None:
            self.servers.start(upstream_worker(self.settings, self.links))

    def _keep_memories_of_keys(self) -> None:
        """Let the keys that the previous version made use their owner's memories, as they did."""
        with self.database.connection() as connection:
            connection.execute("UPDATE api_keys SET memory = 'owner'")

    def finalize_upgrade(self) -> bool:
        """Finalize the upgrade, after which the previous version may not run. Returns whether that was possible."""
        try:
            migrate(self.servers.postgres.dsn, finalize_upgrade=True)
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

    def start_standby(self) -> None:
        """Copy Postgres, and start the copy as its standby."""
        name = f"postgres-{next(self._standbys)}"
        folder = self.folder / name
        self.servers.launch(Standby(folder, self.folder / f"{name}-sockets", self.servers.postgres))

    def fail_over(self) -> None:
        """Kill Postgres after commits that its standby has not received."""
        wait_for_replication(self.servers.postgres)
        self.lost_commits.append(lose_commits(self._standby, lambda: self.kill("postgres")))

    def promote_standby(self) -> None:
        """Make the standby the primary, for all links, and start another standby."""
        server, child = self._standby, self.children.pop("standby")
        promote(server)
        child.name = server.name = "postgres"
        self.children["postgres"], self.servers.postgres = child, server
        self.killed.discard("postgres")
        for link in [self.direct_link, *(link for name, link in self.links.items() if name.endswith("-postgres"))]:
            link.target = postgres_socket(server)
            link.cut()
        self.start_standby()

    @property
    def _standby(self) -> Standby:
        service = self.children["standby"].service
        assert isinstance(service, Standby)
        return service

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
        for name, child in self.children.items():
            if child.running or name in self.killed:
                continue
            if name in self.stopping and child.exit_code in (0, -signal.SIGTERM):  # perhaps before it was ready
                self.stopping.discard(name)
                self.start(name)
            elif time.monotonic() - child.started > RESTART_PAUSE:
                self._restart(child)

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

    def stop(self) -> None:
        """Stop Sangha's processes."""
        for child in self.children.values():
            if child.running:
                signal_tree(child.pid, signal.SIGCONT)
        servers = {*SERVERS, ENDPOINT, "standby"}
        self.servers.stop(*(child for name, child in self.children.items() if name not in servers))
        self.database.close()

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
        if child.name in SUPERVISED:
            threading.Thread(target=self._release_with_retries, args=[child.pid], daemon=True).start()

    def _release_with_retries(self, pid: int) -> None:
        deadline = time.monotonic() + RELEASE_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                release_jobs(self.database, pid)
                return
            time.sleep(RELEASE_INTERVAL)


@contextmanager
def chaos_stack(
    broker: BrokerName,
    slots: int = SLOTS,
    *,
    standby: bool = False,
    previous_commit: str | None = None,
    spills: bool = False,
) -> Iterator[ChaosStack]:
    """Run a stack in a temporary folder until the end of the block. Each engine has `slots` slots.

    spills           whether turns spill to an endpoint
    previous_commit  the version to begin with, which `upgrade` replaces

    Raises ConfigurationError where a program is missing, and Unavailable where a process does not start.
    """
    with ExitStack() as exits:
        code = None
        if previous_commit is not None:
            code = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="sangha-previous-")))
            previous.extract_code(previous_commit, code)
        migrate_first = partial(previous.migrate, code) if code else migrate
        servers = exits.enter_context(temporary_servers(broker, "sangha-chaos-", migrate_first))
        links = exits.enter_context(Links())
        stack = ChaosStack(servers, broker, slots, links, code, start_endpoint(servers) if spills else None)
        exits.callback(stack.stop)
        stack.start_all()
        if standby:
            stack.start_standby()
        yield stack
