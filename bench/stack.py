"""The stack under measurement: servers of its own and Sangha's processes as children, all in one temporary folder.

Everything is a child that dies with this process, listens on loopback or Unix sockets, and is told all of its settings:
nothing of the caller's environment, and nothing that runs on the machine already, is used or touched.
"""

import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg

from bench.client import Address, Client, sign_up
from models.platform.migrate import migrate
from models.platform.settings import Script, Settings, variable
from ops.process import ChildProcess, Service
from ops.rabbitmq import RabbitMQ, free_ports, program
from ops.servers import Postgres, Valkey, running_server
from ops.services import SanghaProcess, SchedulerProcess, WebProcess, WorkerProcess

BrokerName = Literal["rabbitmq", "redis"]

#: Seconds that a process gets to end in good order: there is nothing in it that anybody will need.
GRACE = 5.0

#: Seconds that a worker gets to load its model.
PATIENCE = 120.0


#: What a turn says that is neither remembered nor reminded of anything.
FORGETFUL: Mapping[str, Any] = {"memory": {"remember": False, "recall": False}}

#: The pools of the worker that stands beside the one with the engine, as `sangha up` has it.
BESIDE = ("memory", "recall", "reporting", "delivery", "maintenance")


@dataclass(slots=True)
class Stack:
    """The servers that run, and the folder of all."""

    folder: Path
    broker: BrokerName
    settings: Settings

    @contextmanager
    def platform(
        self,
        *,
        workers: int = 1,
        webs: int = 1,
        pools: Sequence[str] = ("inference",),
        beside: Sequence[str] = (),
        **changes: Any,
    ) -> Iterator["Platform"]:
        """Web, workers of these pools and scheduler with these settings changed, until the end of the block.

        beside  pools of one more worker
        """
        told, *others = [self.told(port=port, **changes) for port in free_ports(webs)]
        doors = [ToldWeb(told), *(ToldWeb(other, f"web-{number}") for number, other in enumerate(others, 2))]
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        crews = [ToldWorker(name, told, pools) for name in names]
        crews += [ToldWorker("worker-beside", told, beside)] if beside else []
        parts = [*doors, *crews, ToldScheduler(told)]
        try:
            with self.running(parts) as children:
                yield Platform(told, children)
        finally:
            leave_nothing(told)

    @contextmanager
    def running(self, parts: Sequence[Service]) -> Iterator[Mapping[str, ChildProcess]]:
        """These as children by name, all ready, until the end of the block."""
        children = {part.name: ChildProcess(part, self.folder / "run", self.folder / "logs") for part in parts}
        try:
            for child in children.values():
                child.start()
            for child in children.values():
                child.wait_ready(PATIENCE)
            yield children
        finally:
            stop([*children.values()])

    def told(self, **changes: Any) -> Settings:
        """The settings of all processes, with changes."""
        return Settings.model_validate(self.settings.model_dump(exclude_none=True) | changes)


@dataclass(slots=True)
class Platform:
    """Sangha's processes, all ready, by name."""

    settings: Settings
    children: Mapping[str, ChildProcess]
    _tokens: list[str] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Where the HTTP door is; the first one of several."""
        return self.settings.host, self.settings.port

    @property
    def addresses(self) -> Sequence[Address]:
        """Where each web process is."""
        parts = [child.service for child in self.children.values()]
        return [(part.settings.host, part.settings.port) for part in parts if isinstance(part, ToldWeb)]

    def tokens(self, count: int) -> Sequence[str]:
        """Tokens of as many accounts."""
        while len(self._tokens) < count:
            self._tokens.append(sign_up(self.address))
        return self._tokens[:count]

    def client(self, account: int = 0) -> Client:
        """A connection that speaks for an account, by its number."""
        return Client(self.address, self.tokens(account + 1)[account])

    def worker_of(self, pid: int) -> ChildProcess:
        """The worker with this pid."""
        return next(child for child in self.children.values() if child.pid == pid)


@contextmanager
def standing(broker: BrokerName) -> Iterator[Stack]:
    """Servers in a temporary folder, which goes with them. Raises ConfigurationError where a program is missing."""
    if broker == "rabbitmq":
        program("rabbitmq-server")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sangha-bench-")))
        run, logs = folder / "run", folder / "logs"
        run.mkdir()
        logs.mkdir()
        postgres, valkey = Postgres(folder / "postgres", run), Valkey(folder / "valkey", run)
        rabbitmq = [RabbitMQ(folder / "rabbitmq")] if broker == "rabbitmq" else []
        parts: list[Service] = [postgres, valkey, *rabbitmq]
        for part in parts:
            stack.enter_context(running_server(part, run, logs, grace=GRACE))
        migrate(postgres.dsn)
        told = {
            "data_dir": folder,
            "database_url": postgres.dsn,
            "redis_url": valkey.url,
            "broker_url": rabbitmq[0].url if rabbitmq else None,
            "secret_key": "a secret of the measurements",
        }
        yield Stack(folder, broker, Settings.model_validate(told))


#: What a platform was given and has not done, so that the workers of the next one find nothing of it.
GIVE_UP = """
UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE state IN ('queued', 'running', 'waiting')
"""


def leave_nothing(settings: Settings) -> None:
    """End all work that is left over, now that nobody does any."""
    with psycopg.connect(settings.postgres_dsn) as connection:
        connection.execute(GIVE_UP)


def stop(children: Sequence[ChildProcess]) -> None:
    """End all at once."""
    for child in children:
        child.signal(signal.SIGTERM)
    for child in children:
        child.wait(GRACE)


def environment(settings: Settings) -> dict[str, str]:
    """All settings as variables; an empty one counts as unset, whatever the caller's environment has."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {variable(name): _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    if isinstance(value, Script):
        return ",".join(f"{name}={item}" for name, item in value.model_dump(exclude_none=True).items())
    if isinstance(value, tuple):  # none of the measured platforms logs in elsewhere
        return ""
    return "" if value is None else str(value)


class Told(SanghaProcess):
    """A process that is told all of its settings."""

    def environment(self) -> Mapping[str, str]:
        """All of them."""
        return environment(self.settings)


class ToldWeb(Told, WebProcess):
    """The HTTP door; one of several has a name of its own."""

    def __init__(self, settings: Settings, name: str = "web") -> None:
        super().__init__(settings)
        self.name = name


class ToldWorker(Told, WorkerProcess):
    """A worker."""


class ToldScheduler(Told, SchedulerProcess):
    """The clock."""
