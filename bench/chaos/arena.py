"""The stack that is broken: servers and Sangha's processes as children, in one temporary folder.

Sangha's processes reach the servers only through links that can be made to fail, one for each kind of process and
server; checker and clients have addresses of their own, past all links. A part that dies unasked is started again, as
`sangha up` and any orchestrator do.
"""

import contextlib
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from bench.chaos.proxy import Link, Links
from bench.chaos.transcripts import SCRIPT
from bench.client import Address
from bench.stack import BESIDE, GRACE, PATIENCE, BrokerName, environment
from models.jobs import workers
from models.platform.database import Database
from models.platform.errors import SanghaError, Unavailable
from models.platform.migrate import migrate
from models.platform.settings import Settings
from ops.process import ChildProcess, Service
from ops.rabbitmq import RabbitMQ, free_ports, program
from ops.servers import Postgres, Valkey
from ops.services import SanghaProcess, SchedulerProcess, WebProcess, WorkerProcess

#: Answers at once of each engine: too few for all clients, so that some of what they ask for always waits.
SLOTS = 4

#: What the folder is called in which logs are kept.
KEPT = "sangha-chaos-logs-"

#: Seconds before a part that died unasked is started again.
PAUSE = 0.5

#: Seconds between two tries to bury a worker, and before the last one.
BURIAL_INTERVAL = 0.25
BURIAL_PATIENCE = 60.0

WEBS = ("web-a", "web-b")
WORKERS = ("inference-a", "inference-b", "beside")
SCHEDULERS = ("scheduler-a", "scheduler-b")
SERVERS = ("postgres", "valkey", "rabbitmq")

#: Who has links of its own, to which servers.
KINDS = ("web", "worker", "scheduler")
LINKS = tuple(f"{kind}-{server}" for kind in KINDS for server in ("postgres", "valkey"))

#: To RabbitMQ: that of all, and before it one of a single worker, whose neighbour takes over what comes again.
QUEUE_LINKS = ("all-rabbitmq", "inference-a-rabbitmq")


class Behind(SanghaProcess):
    """A process that is told addresses of links; whoever asks whether it is ready goes past them."""

    told: Settings

    def environment(self) -> Mapping[str, str]:
        """All settings."""
        return environment(self.told)


class WebBehind(Behind, WebProcess):
    """The HTTP door."""


class WorkerBehind(Behind, WorkerProcess):
    """A worker."""


class SchedulerBehind(Behind, SchedulerProcess):
    """The clock."""


class Arena:
    """All parts and links, by name. Parts live as long as the thread that made it."""

    def __init__(self, folder: Path, broker: BrokerName, slots: int, stack: ExitStack) -> None:
        self.folder = folder
        self.slots = slots
        self.broker = broker
        self.children: dict[str, ChildProcess] = {}
        self.links: dict[str, Link] = {}
        self.restarts: list[str] = []
        self.held: set[str] = set()  # what the adversary has struck: nobody else starts it again
        self.leaving: set[str] = set()  # what was asked to leave, and has a successor as soon as it has
        self._links = stack.enter_context(Links())
        stack.callback(self.end)
        self.settings = self._start_servers()
        self.database = Database(self.settings.postgres_dsn, size=2, name="arena")
        stack.callback(self.database.close)

    @property
    def addresses(self) -> Sequence[Address]:
        """Where the HTTP doors answer."""
        return [("127.0.0.1", self.children[name].service.settings.port) for name in WEBS]  # type: ignore[attr-defined]

    @property
    def control(self) -> Callable[..., str] | None:
        """RabbitMQ's `rabbitmqctl`, where the queue is its."""
        node = self.children.get("rabbitmq")
        return node.service.rabbitmqctl if node and isinstance(node.service, RabbitMQ) else None

    @property
    def pids(self) -> Mapping[str, int]:
        """The pid of each of Sangha's processes."""
        return {name: self.children[name].pid for name in (*WEBS, *WORKERS, *SCHEDULERS)}

    def start_all(self) -> None:
        """Start Sangha's processes and wait until all are ready. Raises Unavailable."""
        for name, part in self._processes().items():
            part.name = name
            self._start(part)
        self.await_ready(self.children)

    def await_ready(self, names: Sequence[str] | Mapping[str, ChildProcess]) -> None:
        """Wait until these answer. Raises Unavailable with the last words of one that doesn't."""
        for name in names:
            self.children[name].wait_ready(PATIENCE)

    def kill(self, name: str) -> None:
        """End a part as kill -9 does. It stays away until it is started."""
        self.held.add(name)
        child = self.children[name]
        if name == "postgres":
            kill_tree(child.pid)
        child.kill()
        child.clear()
        self._bury(child)

    def start(self, name: str) -> None:
        """Start a part that is away."""
        child = self.children[name]
        child.clear()
        child.start()
        self.held.discard(name)

    def ask_to_leave(self, name: str) -> None:
        """What a deployment does: the part's successor starts when it has left."""
        self.leaving.add(name)
        self.children[name].signal(self.children[name].service.stop_signal)

    def freeze(self, name: str) -> None:
        """Stop a part, with all of its processes, wherever they are."""
        signal_tree(self.children[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a frozen part go on."""
        signal_tree(self.children[name].pid, signal.SIGCONT)

    def supervise(self) -> None:
        """Start the successors of those that have left, and again what died unasked."""
        for name, child in self.children.items():
            if child.running or name in self.held:
                continue
            if name in self.leaving and child.exit_code == 0:
                self.leaving.discard(name)
                self.start(name)
            elif time.monotonic() - child.started > PAUSE:
                self._start_again(child)

    def _start_again(self, child: ChildProcess) -> None:
        self.leaving.discard(child.name)
        self.restarts.append(f"{child.name} ended with {child.exit_code}: {child.log.last_line()}")
        self._bury(child)
        with contextlib.suppress(SanghaError, OSError):
            self.start(child.name)

    def keep_logs(self) -> Path:
        """A copy of all logs that stays."""
        return Path(shutil.copytree(self.folder / "logs", tempfile.mkdtemp(prefix=KEPT), dirs_exist_ok=True))

    def end(self) -> None:
        """End all, Sangha's processes first."""
        for child in self.children.values():
            if child.running:
                signal_tree(child.pid, signal.SIGCONT)
        for names in ((*WEBS, *WORKERS, *SCHEDULERS), SERVERS):
            stop([self.children[name] for name in names if name in self.children])

    def _start(self, part: Service) -> ChildProcess:
        child = ChildProcess(part, self.folder / "run", self.folder / "logs")
        child.start()
        self.children[part.name] = child
        return child

    def _start_servers(self) -> Settings:
        """Start the servers. Returns the settings that lead to them past the links."""
        run = self.folder / "run"
        postgres, valkey = Postgres(self.folder / "postgres", run), Valkey(self.folder / "valkey", run)
        rabbitmq = [RabbitMQ(self.folder / "rabbitmq")] if self.broker == "rabbitmq" else []
        servers: list[Service] = [*rabbitmq, postgres, valkey]
        for part in servers:
            self._start(part)
        self.await_ready(self.children)
        migrate(postgres.dsn)
        for link in LINKS:
            socket_ = run / ".s.PGSQL.5432" if link.endswith("postgres") else valkey.socket
            self.links[link] = self._links.open(link, socket_)
        if rabbitmq:
            port = rabbitmq[0].port
            for link in QUEUE_LINKS:
                self.links[link] = self._links.open(link, ("127.0.0.1", port))
                port = self.links[link].port
        told = {
            "data_dir": self.folder,
            "database_url": postgres.dsn,
            "redis_url": valkey.url,
            "broker_url": rabbitmq[0].url if rabbitmq else None,
            "secret_key": "a secret of the chaos",
            "engine": "scripted",
            "script": SCRIPT,
            "slots": self.slots,
            "visits_per_minute": 1_000_000,  # all clients visit from one address
        }
        return Settings.model_validate(told)

    def _processes(self) -> Mapping[str, Behind]:
        direct = [self._direct(port) for port in free_ports(len(WEBS))]
        return {
            **{name: self._behind(WebBehind(each), "web") for name, each in zip(WEBS, direct, strict=True)},
            **{name: self._worker(name, ("inference",)) for name in WORKERS[:2]},
            "beside": self._worker("beside", BESIDE),
            **{name: self._behind(SchedulerBehind(self.settings), "scheduler") for name in SCHEDULERS},
        }

    def _direct(self, port: int) -> Settings:
        return self.settings.model_copy(update={"port": port})

    def _worker(self, name: str, pools: Sequence[str]) -> Behind:
        return self._behind(WorkerBehind(name, self.settings, pools), "worker")

    def _behind(self, process: Behind, kind: str) -> Behind:
        """The process, told to go through the links of its kind."""
        queue = self.links.get(f"{process.name}-rabbitmq") or self.links.get("all-rabbitmq")
        changes = {
            "database_url": f"postgresql://postgres@127.0.0.1:{self.links[f'{kind}-postgres'].port}/sangha",
            "redis_url": f"redis://127.0.0.1:{self.links[f'{kind}-valkey'].port}",
            "broker_url": f"amqp://guest:guest@127.0.0.1:{queue.port}/" if queue else None,
        }
        process.told = process.settings.model_copy(update=changes)
        return process

    def _bury(self, child: ChildProcess) -> None:
        """What `sangha up` does for a dead worker. With RabbitMQ nobody need do it, and nobody does."""
        if self.broker == "redis" and child.name in WORKERS:
            threading.Thread(target=self._bury_patiently, args=[child.pid], daemon=True).start()

    def _bury_patiently(self, pid: int) -> None:
        deadline = time.monotonic() + BURIAL_PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                workers.release_jobs_of_dead_worker(self.database, socket.gethostname(), pid)
                return
            time.sleep(BURIAL_INTERVAL)


@contextmanager
def arena(broker: BrokerName, slots: int = SLOTS) -> Iterator[Arena]:
    """A stack in a temporary folder, all of it ready, which goes with the block. Each engine has so many slots.

    Raises ConfigurationError where a program is missing, and Unavailable where a part does not start.
    """
    if broker == "rabbitmq":
        program("rabbitmq-server")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sangha-chaos-")))
        for name in ("run", "logs"):
            (folder / name).mkdir()
        built = Arena(folder, broker, slots, stack)
        built.start_all()
        yield built


def stop(children: Sequence[ChildProcess]) -> None:
    """End all at once."""
    for child in children:
        child.signal(child.service.stop_signal)
    for child in children:
        child.wait(GRACE)
        child.service.close()


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all below it, if they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def kill_tree(pid: int) -> None:
    """Kill a process and all below it: a Postgres whose sessions live on has not been killed."""
    signal_tree(pid, signal.SIGSTOP)  # or the first deaths would be noticed by those that are to die too
    signal_tree(pid, signal.SIGKILL)
