"""All of Sangha as child processes that a test can kill: servers, web processes, workers, scheduler."""

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from models.jobs import workers
from models.platform.database import Database
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from models.platform.migrate import migrate
from models.platform.redis_client import connect
from models.platform.settings import Settings, variable_name
from ops.process import ChildProcess, Service
from ops.rabbitmq import RabbitMQ, free_ports
from ops.servers import Postgres, Valkey
from ops.services import SanghaProcess, SchedulerProcess, WebProcess, WorkerProcess
from tests.journeys.following import Follower, wait_until

#: Seconds that anything may take to start, on a machine that does much else.
PATIENCE = 60.0

#: For a test that has nothing to do with the broker.
ON_REDIS = pytest.mark.parametrize("installation", ["redis"], indirect=True)


class Parts:
    """Children by name; all of them end with the last line of `with`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.children: dict[str, ChildProcess] = {}
        for name in ("run", "logs"):
            (home / name).mkdir(parents=True, exist_ok=True)

    def start(self, part: Service) -> ChildProcess:
        """Start a part and wait until it answers."""
        child = self.children[part.name] = ChildProcess(part, self.home / "run", self.home / "logs")
        child.start()
        child.wait_ready(PATIENCE)
        return child

    def end(self, child: ChildProcess) -> None:
        """Stop a part in good order."""
        child.stop(15)
        child.service.close()
        self.children.pop(child.name, None)

    def end_all(self) -> None:
        """Stop all parts, the last one first."""
        for child in reversed(list(self.children.values())):
            self.end(child)


class Servers(Parts):
    """Postgres, Valkey and RabbitMQ of their own: here nobody minds when they are killed."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        sockets = Settings(data_dir=home).socket_dir
        self.postgres_part = Postgres(home / "postgres", sockets)
        self.valkey_part = Valkey(home / "valkey", sockets)
        self.rabbitmq_part = RabbitMQ(home / "rabbitmq")
        self.postgres = self.start(self.postgres_part)
        self.valkey = self.start(self.valkey_part)

    @property
    def rabbitmq(self) -> ChildProcess:
        """The node, started when it is first asked for."""
        return self.children.get("rabbitmq") or self.start(self.rabbitmq_part)

    def broker_url(self, broker: str) -> str | None:
        """What SANGHA_BROKER_URL is for a broker; None is the embedded default."""
        return self.rabbitmq_part.url if broker == "rabbitmq" and self.rabbitmq else None

    def new_database(self) -> str:
        """The address of a database of one's own with the present schema."""
        name = new_id("test")
        with psycopg.connect(self.postgres_part.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        dsn = self.postgres_part.dsn.replace("/sangha?", f"/{name}?")
        migrate(dsn)
        return dsn


def restart(child: ChildProcess) -> None:
    """Start a part again that is dead by now."""
    child.clear()
    child.start()
    child.wait_ready(PATIENCE)


class Stack(Parts):
    """An installation: two web processes, a scheduler, and the workers that a test starts."""

    def __init__(self, servers: Servers, home: Path, broker: str) -> None:
        super().__init__(home)
        self.servers = servers
        self.broker = broker
        self.settings = Settings(
            data_dir=home,
            database_url=servers.new_database(),
            redis_url=servers.valkey_part.url,
            broker_url=servers.broker_url(broker),
            secret_key="a secret of the tests",
            engine="scripted",
        )
        self.database = Database(self.settings.postgres_dsn, size=4)
        self.redis = connect(self.settings.redis_address)
        self._scripts = 0

    def close(self) -> None:
        """End all that runs."""
        self.end_all()
        self.redis.close()
        self.database.close()

    def web(self, name: str = "web-a") -> ChildProcess:
        """A web process, started unless it runs."""
        if name in self.children and self.children[name].running:
            return self.children[name]
        settings = self.settings.model_copy(update={"port": free_ports(1)[0]})
        return self.start(named(name, WebProcess(settings), settings))

    def scheduler(self) -> ChildProcess:
        """The scheduler, started unless it runs."""
        if "scheduler" in self.children and self.children["scheduler"].running:
            return self.children["scheduler"]
        return self.start(named("scheduler", SchedulerProcess(self.settings), self.settings))

    def begin_worker(self, script: str = "tokens=20,rate=0", *pools: str, **changes: Any) -> ChildProcess:
        """A worker that is about to be ready: of the inference pool, unless others are named."""
        environment = {"script": script, **changes}
        settings = self.settings.model_copy(update={"slots": environment.pop("slots", 2)})
        self._scripts += 1
        name = f"worker-{self._scripts}"
        part = named(name, WorkerProcess(name, settings, pools or ["inference"]), settings, **environment)
        child = self.children[name] = ChildProcess(part, self.home / "run", self.home / "logs")
        child.start()
        return child

    def worker(self, script: str = "tokens=20,rate=0", *pools: str, **changes: Any) -> ChildProcess:
        """A worker of the inference pool, unless others are named."""
        child = self.begin_worker(script, *pools, **changes)
        child.wait_ready(PATIENCE)
        return child

    def workers(self, count: int, script: str, **changes: Any) -> list[ChildProcess]:
        """Several workers, which start beside one another."""
        children = [self.begin_worker(script, **changes) for _ in range(count)]
        for child in children:
            child.wait_ready(PATIENCE)
        return children

    def end_workers(self) -> None:
        """Kill all workers, so that the next test has its own script."""
        for child in [child for name, child in self.children.items() if name.startswith("worker-")]:
            child.kill()
            child.clear()
            bury(self, child)
            del self.children[child.name]

    def address(self, web: ChildProcess) -> str:
        """Where a web process answers."""
        return f"http://127.0.0.1:{web.service.settings.port}"  # type: ignore[attr-defined]

    def addresses(self) -> list[str]:
        """Where the web processes answer that live."""
        return [
            self.address(child) for name, child in self.children.items() if name.startswith("web") and child.running
        ]

    def runner(self, job_id: str) -> ChildProcess:
        """The worker that runs a job."""
        (row,) = self.rows("SELECT pid FROM workers JOIN jobs ON jobs.worker = workers.name WHERE jobs.id = %s", job_id)
        return next(child for child in self.children.values() if child.pid == row["pid"])

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """What the database says; connections from before its restart don't count."""
        while True:
            try:
                with self.database.connection() as connection:
                    return connection.execute(statement, parameters).fetchall()
            except Unavailable:
                time.sleep(0.05)


def named(name: str, part: SanghaProcess, settings: Settings, **changes: Any) -> SanghaProcess:
    """A part with a name of its own and the whole of its settings in its environment."""
    part.name = name
    given = {**settings.model_dump(exclude_unset=True, exclude={"script"}), **changes}
    values = {variable_name(field): str(value) for field, value in given.items() if value is not None}
    environment = part.environment()
    part.environment = lambda: {**environment, **values}  # type: ignore[method-assign]
    return part


def bury(stack: Stack, child: ChildProcess) -> int:
    """What a supervisor does when it has seen a worker die."""
    stack.rows("SELECT 1")
    return workers.release_jobs_of_dead_worker(stack.database, socket.gethostname(), child.pid)


class Person:
    """Somebody with an account, who talks to any web process that lives."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.email = f"{new_id('me')}@example.com"
        answer = httpx.post(
            f"{stack.addresses()[0]}/signup", json={"email": self.email, "password": "correct horse"}, timeout=30
        )
        assert answer.status_code == 201, answer.text
        self.token = answer.json()["token"]
        self.account = answer.json()["account"]["id"]
        self.headers = {"authorization": f"Bearer {self.token}"}

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request to a living web process, again while a part of it is away."""
        while True:
            url = self.stack.addresses()[0] + path
            answer = httpx.request(method, url, headers=self.headers, timeout=60, **options)
            if answer.status_code != 503:
                return answer
            time.sleep(0.05)

    def get(self, path: str) -> dict[str, Any]:
        """What a path holds."""
        answer = self.request("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a POST is answered with."""
        answer = self.request("POST", path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self, text: str = "hello", **options: Any) -> dict[str, Any]:
        """A turn in the background."""
        return self.post("/v1/responses", {"input": text, "background": True, **options})

    def stream(self, text: str = "hello", **options: Any) -> Follower:
        """A turn that is followed from the beginning, through whatever happens."""
        body = {"input": text, "stream": True, **options}
        return Follower(self.stack.addresses, self.headers, body=body).start()

    def stream_once(self) -> None:
        """A turn, followed by somebody who gives up when the connection breaks."""
        with httpx.Client(base_url=self.stack.addresses()[0], headers=self.headers, timeout=30) as client:
            client.post("/v1/responses", json={"input": "hello", "stream": True})

    def follow(self, response_id: str, after: int = -1) -> Follower:
        """The stream of a turn from a sequence number on."""
        return Follower(self.stack.addresses, self.headers, response_id=response_id, after=after).start()

    def replay(self, response_id: str, after: int) -> Follower:
        """The same, asked for by `starting_after`."""
        return Follower(self.stack.addresses, self.headers, response_id=response_id, after=after, by_query=True).start()

    def final(self, response_id: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """A turn that has ended."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.get(f"/v1/responses/{response_id}"))
            return found["status"] not in ("queued", "in_progress")

        wait_until(ended, timeout)
        return found


class Supervisor:
    """Restarts workers that die, and gives back what they held."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.restarts = 0
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Supervisor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._leaving.wait(0.02):
            for child in [child for name, child in self.stack.children.items() if name.startswith("worker-")]:
                if not child.running:
                    bury(self.stack, child)
                    child.clear()
                    child.start()
                    self.restarts += 1
        # A child dies with the thread that started it (Linux ties its life to it): end them before this thread.
        for child in [child for name, child in self.stack.children.items() if name.startswith("worker-")]:
            child.stop(15)


def note(what: str, seconds: float) -> None:
    """Keep a measured time in the file that SANGHA_TIMES names, if it names one."""
    if path := os.environ.get("SANGHA_TIMES"):
        with Path(path).open("a") as file:
            file.write(f"{what}: {seconds:.3f} s\n")
