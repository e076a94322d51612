"""The peer's processes and the model that both platforms ask, as children of the stack.

Aegra runs as its guide to deployment has it for production: Redis as its broker, so with workers, leases and a reaper;
its Postgres checkpointer; instances that share both. One instance is the door (`WORKER_COUNT=0`), the others work.
"""

import http.client
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.client import Address
from bench.stack import Stack
from ops.process import ChildProcess
from ops.rabbitmq import free_ports

HOST = "127.0.0.1"

#: The peer's database, and its number on the Redis that both share.
DATABASE, REDIS_NUMBER = "aegra", 1

#: Workers, and runs at once in each of them: with as many as clients in all, both platforms' connections to Postgres
#: stay within what it gives. Two use two cores better than one.
WORKERS, AT_ONCE = 2, 8

CONFIGURATION = Path(__file__).parent / "aegra" / "aegra.json"


class Told:
    """What all of these processes have in common."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None
    name: str
    port: int

    def prepare(self) -> None:
        """Nothing has to be made."""

    def close(self) -> None:
        """Nothing is left to end."""


class Endpoint(Told):
    """The scripted model."""

    name = "peer-endpoint"

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def address(self) -> Address:
        """Where it listens."""
        return HOST, self.port

    @property
    def url(self) -> str:
        """Where its paths begin."""
        return f"http://{HOST}:{self.port}/v1"

    def command(self) -> list[str]:
        """See `bench.peers.endpoint`."""
        return [sys.executable, "-m", "bench.peers.endpoint", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def ready(self, pid: int) -> bool:
        """Whether it listens."""
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Aegra(Told):
    """One instance."""

    def __init__(self, name: str, python: Path, stack: Stack, model: Mapping[str, str], *, works: bool) -> None:
        self.name = name
        self.port = free_ports(1)[0]
        self._python = python
        self._stack = stack
        self._model = model
        self._works = works

    def command(self) -> list[str]:
        """As its own command `aegra serve` does; our own log of visits is off too."""
        serve = ["-m", "uvicorn", "aegra_api.main:app", "--host", HOST, "--port", str(self.port), "--no-access-log"]
        return [str(self._python), *serve]

    def environment(self) -> Mapping[str, str]:
        """Its settings, by the names of its documentation. The door has a connection for each client."""
        connections = str(AT_ONCE if self._works else WORKERS * AT_ONCE)
        return {
            **self._model,
            "PYTHONPATH": "",
            "DATABASE_URL": dsn(self._stack),
            "REDIS_BROKER_ENABLED": "true",
            "REDIS_URL": f"{self._stack.settings.redis_address}?db={REDIS_NUMBER}",
            "AEGRA_CONFIG": str(CONFIGURATION),
            "AUTH_TYPE": "noop",
            "ENV_MODE": "PRODUCTION",
            "LOG_LEVEL": "WARNING",
            "LANGSMITH_TRACING": "false",
            "WORKER_COUNT": "1" if self._works else "0",
            "N_JOBS_PER_WORKER": str(AT_ONCE),
            "SQLALCHEMY_POOL_SIZE": connections,
            "SQLALCHEMY_MAX_OVERFLOW": "0",
            "LANGGRAPH_MIN_POOL_SIZE": "1",
            "LANGGRAPH_MAX_POOL_SIZE": connections,
        }

    def ready(self, pid: int) -> bool:
        """Whether it says that it is."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=3)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer's processes, all ready: the door's address, and the workers."""

    address: Address
    workers: list[ChildProcess]
    dsn: str


def dsn(stack: Stack) -> str:
    """Where the peer's database is: on the same server as ours. SQLAlchemy wants the folder of the socket as it is."""
    return f"postgresql://postgres@/{DATABASE}?host={stack.folder / 'run'}"


@contextmanager
def endpoint(stack: Stack) -> Iterator[Endpoint]:
    """The model, until the end of the block."""
    part = Endpoint(free_ports(1)[0])
    with stack.running([part]):
        yield part


@contextmanager
def peer(stack: Stack, python: Path, model: Endpoint, script: str) -> Iterator[Peer]:
    """The door and its workers, in a database of their own, until the end of the block."""
    remake_database(stack)
    told = {"PEER_ENDPOINT": model.url, "PEER_MODEL": script}
    door = Aegra("peer-web", python, stack, told, works=False)
    crews = [Aegra(f"peer-worker-{number}", python, stack, told, works=True) for number in range(1, WORKERS + 1)]
    with stack.running([door]), stack.running(crews) as children:  # the first to start migrates the database
        yield Peer((HOST, door.port), [*children.values()], dsn(stack))


def remake_database(stack: Stack) -> None:
    """An empty one."""
    with psycopg.connect(stack.settings.postgres_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS aegra WITH (FORCE)")
        connection.execute("CREATE DATABASE aegra")
