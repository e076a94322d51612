"""Servers and platforms as child processes, all in one temporary folder.

Every process dies with this one, listens on loopback or Unix sockets, and gets all of its settings from here: nothing
of the caller's environment, and no server that runs on the machine already, is used or changed.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
import redis

from bench.harness.client import Address, Client, sign_up
from bench.harness.processes import ConfiguredScheduler, ConfiguredWeb, ConfiguredWorker, ProcessGroup, changed
from bench.harness.sse import CheckFailed
from models.accounts.accounts import DEFAULT_PLAN, UNVERIFIED_PLAN
from models.jobs.catalogue import CATALOGUE
from models.platform.database import Database, fetch_one
from models.platform.migrate import migrate
from models.platform.redis_client import connect
from models.platform.settings import Settings
from ops.child_process import ChildProcess, Service
from ops.embedded_servers import Postgres, Valkey
from ops.rabbitmq import RabbitMQ, free_ports, program

BrokerName = Literal["rabbitmq", "redis"]

#: Options of a turn that neither recalls memories nor is remembered.
WITHOUT_MEMORY: Mapping[str, Any] = {"memory": {"remember": False, "recall": False}}

#: The pools of the second worker that `sangha up` runs, beside the one with the engine.
LIGHT_POOLS = ("memory", "recall", "tools", "billing", "reporting", "delivery", "maintenance")

#: The queues of the broker.
QUEUES = tuple(sorted({kind.queue for kind in CATALOGUE.values()}))

#: What the keys of the queues begin with where Redis is the broker.
QUEUE_PREFIX = "sangha:queue:"

#: The queues of models and endpoints.
MODEL_QUEUES = ("inference.*", "upstream.*")

PURGE = "[rabbit_amqqueue:purge(Queue) || Queue <- rabbit_amqqueue:list()]."

CANCEL_UNFINISHED = """
UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE state IN ('scheduled', 'queued', 'running', 'waiting')
"""

LEAVE_UNVERIFIED_PLAN = "UPDATE accounts SET plan_id = %(default)s WHERE plan_id = %(unverified)s"

RUNNER = """
SELECT workers.pid FROM jobs JOIN workers ON workers.name = jobs.worker WHERE jobs.id = %(id)s AND state = 'running'
"""


class Servers(ProcessGroup):
    """Postgres, Valkey and, for that broker, RabbitMQ in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        sockets = Settings.model_validate({"data_dir": folder}).socket_dir
        self.postgres = Postgres(folder / "postgres", sockets)
        self.valkey = Valkey(folder / "valkey", sockets)
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")

    def start_for(self, broker: BrokerName, migrate: Callable[[str], object] = migrate) -> None:
        """Start what runs over a broker and does not run yet, and migrate the database."""
        services: list[Service] = [self.postgres, self.valkey, *([self.rabbitmq] if broker == "rabbitmq" else [])]
        self.start(*(service for service in services if service.name not in self.children))
        migrate(self.postgres.dsn)

    def purge_queues(self, broker: BrokerName) -> None:
        """Remove all messages."""
        if broker == "rabbitmq":
            self.rabbitmq.rabbitmqctl("eval", PURGE)  # one command: each takes a second
        else:
            with closing(connect(self.valkey.url)) as client:
                for name in queue_names(client):
                    client.delete(f"sangha:queue:{name}", f"sangha:queue:{name}.msgs")

    def settings(self, broker: BrokerName, **changes: Any) -> Settings:
        """Settings of processes that use these servers."""
        values = {
            "data_dir": self.folder,
            "database_url": self.postgres.dsn,
            "redis_url": self.valkey.url,
            "broker_url": self.rabbitmq.url if broker == "rabbitmq" else None,
            "secret_key": "a secret of the harness",
        }
        return Settings.model_validate(values | changes)


@dataclass(slots=True)
class Stack:
    """Running servers, on which platforms are started one after the other."""

    servers: Servers
    broker: BrokerName

    @property
    def folder(self) -> Path:
        """Where pid files, logs and data are."""
        return self.servers.folder

    @property
    def settings(self) -> Settings:
        """The settings of all processes."""
        return self.servers.settings(self.broker)

    @contextmanager
    def platform(
        self,
        *,
        workers: int = 1,
        webs: int = 1,
        pools: Sequence[str] = ("inference",),
        light_pools: Sequence[str] = (),
        **changes: Any,
    ) -> Iterator["RunningPlatform"]:
        """Run web processes, workers of `pools`, one worker of `light_pools` and a scheduler, with changed settings."""
        settings, *others = [changed(self.settings, port=port, **changes) for port in free_ports(webs)]
        web = [
            ConfiguredWeb(settings),
            *(ConfiguredWeb(each, f"web-{number}") for number, each in enumerate(others, 2)),
        ]
        working = [ConfiguredWorker(f"worker-{number}", settings, pools) for number in range(1, workers + 1)]
        working += [ConfiguredWorker("worker-light", settings, light_pools)] if light_pools else []
        try:
            with self.servers.running([*web, *working, ConfiguredScheduler(settings)]) as children:
                yield RunningPlatform(settings, children)
        finally:
            cancel_unfinished(settings)


@dataclass(slots=True)
class RunningPlatform:
    """Sangha's processes, all ready, by name."""

    settings: Settings
    children: Mapping[str, ChildProcess]
    _tokens: list[str] = field(default_factory=list)

    @property
    def address(self) -> Address:
        """The address of the first web process."""
        return self.settings.host, self.settings.port

    @property
    def addresses(self) -> Sequence[Address]:
        """The addresses of all web processes."""
        services = [child.service for child in self.children.values()]
        return [(each.settings.host, each.settings.port) for each in services if isinstance(each, ConfiguredWeb)]

    def tokens(self, count: int) -> Sequence[str]:
        """Return the tokens of `count` accounts, which are created on first use."""
        if len(self._tokens) < count:
            self._tokens += [sign_up(self.address) for _ in range(count - len(self._tokens))]
            leave_unverified_plan(self.settings)
        return self._tokens[:count]

    def client(self, account: int = 0) -> Client:
        """Return a connection with the token of an account, by its number."""
        return Client(self.address, self.tokens(account + 1)[account])

    def runner(self, database: Database, job_id: str) -> ChildProcess:
        """Return the worker that runs a job. Raises CheckFailed when none does."""
        return runner(self.children, database, job_id)


def runner(children: Mapping[str, ChildProcess], database: Database, job_id: str) -> ChildProcess:
    """Return the worker that runs a job. Raises CheckFailed when none of these does."""
    with database.connection() as connection:
        row = fetch_one(connection, RUNNER, {"id": job_id})
    worker = next((child for child in children.values() if row and child.pid == row["pid"]), None)
    if worker is None:
        raise CheckFailed(f"no worker runs {job_id}")
    return worker


def redis_queue_lengths(client: redis.Redis) -> Mapping[str, int]:
    """Count the messages of each queue where Redis is the broker."""
    return {name: int(client.llen(f"{QUEUE_PREFIX}{name}")) for name in queue_names(client)}


def queue_names(client: redis.Redis) -> Sequence[str]:
    """Return the queues of the catalogue, and those of models and endpoints that have messages."""
    keys = [key for pattern in MODEL_QUEUES for key in client.scan_iter(f"{QUEUE_PREFIX}{pattern}", count=1000)]
    names = {key.decode().removeprefix(QUEUE_PREFIX).removesuffix(".msgs") for key in keys}
    return sorted({*QUEUES, *(name for name in names if not name.endswith(".XQ"))})


@contextmanager
def temporary_servers(
    broker: BrokerName, prefix: str = "sangha-bench-", migrate: Callable[[str], object] = migrate
) -> Iterator[Servers]:
    """Run servers in a temporary folder until the end of the block. `migrate` migrates the database.

    Raises ConfigurationError where the broker's program is not installed.
    """
    if broker == "rabbitmq":
        program("rabbitmq-server")
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        servers = Servers(Path(folder))
        try:
            servers.start_for(broker, migrate)
            yield servers
        finally:
            servers.stop()


@contextmanager
def running_stack(broker: BrokerName) -> Iterator[Stack]:
    """Run a stack in a temporary folder until the end of the block."""
    with temporary_servers(broker) as servers:
        yield Stack(servers, broker)


def leave_unverified_plan(settings: Settings) -> None:
    """Give all accounts the plan of verified ones, whose turns have no limits to check."""
    with psycopg.connect(settings.postgres_dsn) as connection:
        connection.execute(LEAVE_UNVERIFIED_PLAN, {"default": DEFAULT_PLAN, "unverified": UNVERIFIED_PLAN})


def cancel_unfinished(settings: Settings) -> None:
    """Cancel the jobs that a stopped platform left, so that the workers of the next one find none."""
    with psycopg.connect(settings.postgres_dsn) as connection:
        connection.execute(CANCEL_UNFINISHED)
