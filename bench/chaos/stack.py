"""The stack that is broken: servers and Sangha's processes as children, in one temporary folder.

Sangha's processes reach the servers only through links that can be made to fail, one for each kind of process and
server; checker and clients connect directly. A process that dies unexpectedly is restarted, as `sangha up` and any
orchestrator do.
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
from pathlib import Path

from bench.chaos.proxy import Link, Links
from bench.chaos.transcripts import SCRIPT
from bench.harness.client import Address
from bench.harness.processes import (
    START_TIMEOUT,
    ConfiguredProcess,
    ConfiguredScheduler,
    ConfiguredWeb,
    ConfiguredWorker,
    kill_tree,
    release_jobs,
    signal_tree,
)
from bench.harness.stack import LIGHT_POOLS, BrokerName, Servers, temporary_servers
from models.platform.database import Database
from models.platform.errors import SanghaError, Unavailable
from models.platform.settings import Settings
from ops.child_process import ChildProcess
from ops.rabbitmq import free_ports

#: Slots of each engine: too few for all clients, so that some turns always wait.
SLOTS = 4

#: The prefix of the folder in which logs are kept.
LOGS_PREFIX = "sangha-chaos-logs-"

#: Seconds before a process that died unexpectedly is restarted.
RESTART_PAUSE = 0.5

#: Seconds between two attempts to release a dead worker's jobs, and before giving up.
RELEASE_INTERVAL, RELEASE_TIMEOUT = 0.25, 60.0

WEBS = ("web-a", "web-b")
ENGINES = ("inference-a", "inference-b")
WORKERS = (*ENGINES, "light")
SCHEDULERS = ("scheduler-a", "scheduler-b")
SERVERS = ("postgres", "valkey", "rabbitmq")

#: The kinds of processes that have links of their own, and their links.
KINDS = ("web", "worker", "scheduler")
LINKS = tuple(f"{kind}-{server}" for kind in KINDS for server in ("postgres", "valkey"))

#: The seconds by which the clock of the last web process is behind, and the folder of the module that shifts it.
CLOCK_SKEW, SKEWED_CLOCK = -1.5, Path(__file__).with_name("skewed_clock")

#: Links to RabbitMQ: one of all processes, and before it one of a single worker, whose messages another worker gets.
QUEUE_LINKS = ("all-rabbitmq", "inference-a-rabbitmq")


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker that was killed, frozen for longer than its lease, or died, by time.time."""

    name: str
    at: float


class ChaosStack:
    """All processes and links, by name. Processes live as long as the thread that made it.

    restarts  descriptions of unexpected deaths
    deaths    of workers, expected or not
    killed    processes that a fault has killed, and that only the fault starts again
    stopping  processes that a fault has asked to end, and that are started again as soon as they have
    """

    def __init__(self, servers: Servers, broker: BrokerName, slots: int) -> None:
        self.servers = servers
        self.broker = broker
        self.children = servers.children
        self.links: dict[str, Link] = {}
        self.restarts: list[str] = []
        self.deaths: list[WorkerDeath] = []
        self.killed: set[str] = set()
        self.stopping: set[str] = set()
        changes = {"engine": "scripted", "script": SCRIPT, "slots": slots, "reflection": "on", "reflection_calls": 2}
        # All clients have the same IP address.
        self.settings = servers.settings(broker, **changes, visits_per_minute=1_000_000)
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
        return {name: self.children[name].pid for name in (*WEBS, *WORKERS, *SCHEDULERS)}

    def start_all(self, links: Links) -> None:
        """Open the links, and start Sangha's processes. Raises Unavailable."""
        sockets = {"postgres": self.servers.postgres.sockets / ".s.PGSQL.5432", "valkey": self.servers.valkey.socket}
        for name in LINKS:
            self.links[name] = links.open(name, sockets[name.partition("-")[2]])
        port = self.servers.rabbitmq.port
        for name in QUEUE_LINKS if self.broker == "rabbitmq" else ():
            self.links[name] = links.open(name, ("127.0.0.1", port))
            port = self.links[name].port
        self.servers.start(*self._processes())

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
            if name in self.stopping and child.exit_code == 0:
                self.stopping.discard(name)
                self.start(name)
            elif time.monotonic() - child.started > RESTART_PAUSE:
                self._restart(child)

    def keep_logs(self) -> Path:
        """Copy all logs to a folder that is kept."""
        return Path(shutil.copytree(self.folder / "logs", tempfile.mkdtemp(prefix=LOGS_PREFIX), dirs_exist_ok=True))

    def stop(self) -> None:
        """Stop Sangha's processes."""
        for child in self.children.values():
            if child.running:
                signal_tree(child.pid, signal.SIGCONT)
        self.servers.stop(*(child for name, child in self.children.items() if name not in SERVERS))
        self.database.close()

    def _restart(self, child: ChildProcess) -> None:
        self.stopping.discard(child.name)
        self._record_death(child.name)
        self.restarts.append(f"{child.name} ended with {child.exit_code}: {child.log.last_line()}")
        self._release_jobs(child)
        with contextlib.suppress(SanghaError, OSError):
            self.start(child.name)

    def _record_death(self, name: str) -> None:
        if name in WORKERS:
            self.deaths.append(WorkerDeath(name, time.time()))

    def _processes(self) -> list[ConfiguredProcess]:
        ports = zip(WEBS, free_ports(len(WEBS)), strict=True)
        webs = [ConfiguredWeb(self.settings.model_copy(update={"port": port}), name) for name, port in ports]
        engines = [ConfiguredWorker(name, self.settings, ["inference"]) for name in ENGINES]
        light = ConfiguredWorker("light", self.settings, LIGHT_POOLS)
        schedulers = [ConfiguredScheduler(self.settings, name) for name in SCHEDULERS]
        by_kind: dict[str, Sequence[ConfiguredProcess]] = {
            "web": webs,
            "worker": [*engines, light],
            "scheduler": schedulers,
        }
        for kind, processes in by_kind.items():
            for process in processes:
                process.child_settings = self._through_links(process, kind)
        webs[-1].variables = {"PYTHONPATH": str(SKEWED_CLOCK), "CHAOS_CLOCK_SKEW": str(CLOCK_SKEW)}
        return [process for processes in by_kind.values() for process in processes]

    def _through_links(self, process: ConfiguredProcess, kind: str) -> Settings:
        """Return the settings of a process that connects through the links of its kind."""
        queue = self.links.get(f"{process.name}-rabbitmq") or self.links.get("all-rabbitmq")
        changes = {
            "database_url": f"postgresql://postgres@127.0.0.1:{self.links[f'{kind}-postgres'].port}/sangha",
            "redis_url": f"redis://127.0.0.1:{self.links[f'{kind}-valkey'].port}",
            "broker_url": f"amqp://guest:guest@127.0.0.1:{queue.port}/" if queue else None,
        }
        return process.settings.model_copy(update=changes)

    def _release_jobs(self, child: ChildProcess) -> None:
        """Release a dead worker's jobs as `sangha up` does; with RabbitMQ the broker does."""
        if self.broker == "redis" and child.name in WORKERS:
            threading.Thread(target=self._release_with_retries, args=[child.pid], daemon=True).start()

    def _release_with_retries(self, pid: int) -> None:
        deadline = time.monotonic() + RELEASE_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                release_jobs(self.database, pid)
                return
            time.sleep(RELEASE_INTERVAL)


@contextmanager
def chaos_stack(broker: BrokerName, slots: int = SLOTS) -> Iterator[ChaosStack]:
    """Run a stack in a temporary folder until the end of the block. Each engine has `slots` slots.

    Raises ConfigurationError where a program is missing, and Unavailable where a process does not start.
    """
    with ExitStack() as exits:
        servers = exits.enter_context(temporary_servers(broker, "sangha-chaos-"))
        links = exits.enter_context(Links())
        stack = ChaosStack(servers, broker, slots)
        exits.callback(stack.stop)
        stack.start_all(links)
        yield stack
