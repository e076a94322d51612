"""The peer's processes, and the model that both platforms request, as children of the stack.

Aegra runs as its deployment guide recommends for production: Redis as its broker, with workers, leases and a reaper;
its Postgres checkpointer; instances that share both. One instance serves HTTP only (`WORKER_COUNT=0`), the others work.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.harness.client import Address
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.stack import Stack
from bench.peers.process import HOST, PeerProcess
from ops.child_process import ChildProcess
from ops.rabbitmq import free_ports

#: The peer's database, and its number on the Redis that both share.
DATABASE, REDIS_NUMBER = "aegra", 1

#: Workers, and parallel runs of each: as many in all as there are clients, so that both platforms' connections to
#: Postgres stay below its limit. Two workers use two cores better than one.
WORKERS, RUNS_A_WORKER = 2, 8

CONFIGURATION = Path(__file__).parent / "aegra" / "aegra.json"


class Aegra(PeerProcess):
    """One instance: a worker, or the web process."""

    def __init__(self, name: str, python: Path, stack: Stack, model: Mapping[str, str], *, works: bool) -> None:
        self.name = name
        self.port = free_ports(1)[0]
        self._python = python
        self._stack = stack
        self._model = model
        self._works = works

    def command(self) -> list[str]:
        """Return the command that `aegra serve` runs, without an access log, since ours is off too."""
        serve = ["-m", "uvicorn", "aegra_api.main:app", "--host", HOST, "--port", str(self.port), "--no-access-log"]
        return [str(self._python), *serve]

    def environment(self) -> Mapping[str, str]:
        """Return its settings, by their documented names. The web process has a connection for each client."""
        connections = str(RUNS_A_WORKER if self._works else WORKERS * RUNS_A_WORKER)
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
            "N_JOBS_PER_WORKER": str(RUNS_A_WORKER),
            "SQLALCHEMY_POOL_SIZE": connections,
            "SQLALCHEMY_MAX_OVERFLOW": "0",
            "LANGGRAPH_MIN_POOL_SIZE": "1",
            "LANGGRAPH_MAX_POOL_SIZE": connections,
        }

    def ready(self, pid: int) -> bool:
        """Return whether /ready answers with 200."""
        return self.answers("/ready")


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer's running processes: their names, the address of the web process, the workers, and the database."""

    names: Collection[str]
    address: Address
    workers: list[ChildProcess]
    dsn: str


def dsn(stack: Stack) -> str:
    """Return the peer's database, on the same server as ours. SQLAlchemy needs the socket folder unquoted."""
    return f"postgresql://postgres@/{DATABASE}?host={stack.servers.postgres.sockets}"


@contextmanager
def endpoint(stack: Stack) -> Iterator[ScriptedEndpoint]:
    """Run the model until the end of the block."""
    service = ScriptedEndpoint("peer-endpoint")
    with stack.servers.running([service]):
        yield service


@contextmanager
def peer(stack: Stack, python: Path, model: ScriptedEndpoint, script: str) -> Iterator[Peer]:
    """Run the peer's web process and workers in an empty database until the end of the block."""
    recreate_database(stack)
    settings = {"PEER_ENDPOINT": model.url, "PEER_MODEL": script}
    web = Aegra("peer-web", python, stack, settings, works=False)
    workers = [Aegra(f"peer-worker-{number}", python, stack, settings, works=True) for number in range(1, WORKERS + 1)]
    with stack.servers.running([web]), stack.servers.running(workers) as children:  # the first migrates the database
        yield Peer([web.name, *children], (HOST, web.port), [*children.values()], dsn(stack))


def recreate_database(stack: Stack) -> None:
    """Drop and create the peer's database."""
    with psycopg.connect(stack.settings.postgres_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS aegra WITH (FORCE)")
        connection.execute("CREATE DATABASE aegra")
