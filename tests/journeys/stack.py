"""An installation whose processes a test can kill, and its users."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from bench.harness import stack
from bench.harness.processes import (
    START_TIMEOUT,
    ConfiguredScheduler,
    ConfiguredWeb,
    ConfiguredWorker,
    ProcessGroup,
    changed,
    release_jobs,
)
from bench.harness.sse import ALL_EVENTS
from bench.harness.stack import BrokerName, Servers
from bench.harness.waiting import wait_until
from models.platform.database import Database
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from models.platform.redis_client import connect
from ops.child_process import ChildProcess
from ops.rabbitmq import free_ports
from tests.databases import create_database
from tests.journeys.stream_follower import StreamFollower

#: Runs a test over one broker only, because it does not depend on the broker.
ON_REDIS = pytest.mark.parametrize("installation", ["redis"], indirect=True)

FINAL_STATUSES = ("completed", "incomplete", "failed", "cancelled")


@contextmanager
def installation_with(
    servers: Servers, name: str, connect_through: Callable[["Installation"], AbstractContextManager[Mapping[str, Any]]]
) -> Iterator["Installation"]:
    """An installation in a folder of its own, whose processes reach a server in another way.

    connect_through  runs that server, and returns the settings to change
    """
    installation = Installation(servers, servers.folder / new_id(name), "redis")
    try:
        with connect_through(installation) as changes:
            installation.settings = changed(installation.settings, **changes)
            yield installation
            installation.stop()
    finally:
        installation.close()


#: The databases of a Redis server that installations use in turn.
REDIS_DATABASES = cycle(range(1, 16))


class Installation(ProcessGroup):
    """Two web processes, a scheduler, and the workers that a test starts.

    They have a database of their own in Postgres and in Redis, so that no worker takes another installation's messages.
    """

    def __init__(self, servers: Servers, home: Path, broker: BrokerName) -> None:
        super().__init__(home)
        servers.start_for(broker)
        self.servers = servers
        self.broker = broker
        changes = {"data_dir": home, "database_url": create_database(servers.postgres), "engine": "scripted"}
        changes["redis_url"] = f"{servers.valkey.url}?db={next(REDIS_DATABASES)}"
        self.settings = servers.settings(broker, **changes)
        self.database = Database(self.settings.postgres_dsn, size=4)
        self.redis = connect(self.settings.redis_address)
        self.redis.flushdb()
        self._workers_started = 0

    def close(self) -> None:
        """Stop all processes."""
        self.stop()
        self.redis.close()
        self.database.close()

    def start_web(self, name: str = "web-a") -> ChildProcess:
        """Start a web process, unless it runs."""
        if self._is_running(name):
            return self.children[name]
        return self.start(ConfiguredWeb(changed(self.settings, port=free_ports(1)[0]), name))[0]

    def start_scheduler(self, name: str = "scheduler") -> ChildProcess:
        """Start a scheduler, unless it runs."""
        if self._is_running(name):
            return self.children[name]
        return self.start(ConfiguredScheduler(self.settings, name))[0]

    def launch_worker(self, script: str = "tokens=20,rate=0", *pools: str, **changes: Any) -> ChildProcess:
        """Start a worker of the inference pool, or of other pools, without waiting for it."""
        self._workers_started += 1
        name = f"worker-{self._workers_started}"
        settings = changed(self.settings, **{"slots": 2, **({"script": script} if script else {}), **changes})
        return self.launch(ConfiguredWorker(name, settings, pools or ["inference"]))

    def start_worker(self, script: str = "tokens=20,rate=0", *pools: str, **changes: Any) -> ChildProcess:
        """Start a worker of the inference pool, or of other pools."""
        child = self.launch_worker(script, *pools, **changes)
        child.wait_ready(START_TIMEOUT)
        return child

    def start_workers(self, count: int, script: str, **changes: Any) -> list[ChildProcess]:
        """Start several workers side by side."""
        children = [self.launch_worker(script, **changes) for _ in range(count)]
        for child in children:
            child.wait_ready(START_TIMEOUT)
        return children

    def workers(self) -> Sequence[ChildProcess]:
        """Return the workers that were started."""
        return [child for name, child in self.children.items() if name.startswith("worker-")]

    def kill_workers(self) -> None:
        """Kill all workers, so that the next test can start its own."""
        for child in self.workers():
            self.remove(child)
            self.release_jobs(child)

    def release_jobs(self, child: ChildProcess) -> int:
        """Release a dead worker's jobs as the supervisor does, once the database answers."""
        self.rows("SELECT 1")
        return release_jobs(self.database, child.pid)

    def addresses(self) -> list[str]:
        """Return the base URLs of the running web processes."""
        services = [child.service for child in self.children.values() if child.running]
        return [f"http://127.0.0.1:{each.settings.port}" for each in services if isinstance(each, ConfiguredWeb)]

    def runner(self, job_id: str) -> ChildProcess:
        """Return the worker that runs a job."""
        return stack.runner(self.children, self.database, job_id)

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Run a statement, again while the database is unavailable or a pooled connection is broken."""
        while True:
            try:
                with self.database.connection() as connection:
                    return connection.execute(statement, parameters).fetchall()
            except Unavailable:
                time.sleep(0.05)

    def _is_running(self, name: str) -> bool:
        return name in self.children and self.children[name].running


class AccountOwner:
    """The owner of a new account, whose requests go to any running web process."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.email = f"{new_id('me')}@example.com"
        body = {"email": self.email, "password": "correct horse"}
        response = httpx.post(f"{installation.addresses()[0]}/signup", json=body, timeout=30)
        assert response.status_code == 201, response.text
        self.token = response.json()["token"]
        self.account = response.json()["account"]["id"]
        self.headers = {"authorization": f"Bearer {self.token}", **ALL_EVENTS}

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, again while the answer is 503."""
        while True:
            url = self.installation.addresses()[0] + path
            response = httpx.request(method, url, headers=self.headers, timeout=60, **options)
            if response.status_code != 503:
                return response
            time.sleep(0.05)

    def get(self, path: str) -> dict[str, Any]:
        """GET an object."""
        response = self.request("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST a body, and return the answer."""
        response = self.request("POST", path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def create_response(self, text: str = "hello", **options: Any) -> dict[str, Any]:
        """Create a background turn."""
        return self.post("/v1/responses", {"input": text, "background": True, **options})

    def stream(self, text: str = "hello", **options: Any) -> StreamFollower:
        """Create a streamed turn, and follow it over any number of connections."""
        body = {"input": text, "stream": True, **options}
        return StreamFollower(self.installation.addresses, self.headers, body=body)

    def stream_once(self) -> None:
        """Stream a turn over one connection."""
        with httpx.Client(base_url=self.installation.addresses()[0], headers=self.headers, timeout=30) as client:
            client.post("/v1/responses", json={"input": "hello", "stream": True})

    def follow(self, response_id: str, after: int = -1, *, by_query: bool = False) -> StreamFollower:
        """Follow a turn after a sequence number, sent as `Last-Event-ID` or as `starting_after`."""
        return StreamFollower(
            self.installation.addresses, self.headers, response_id=response_id, after=after, by_query=by_query
        )

    def wait_for_end(self, response_id: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until a turn has ended; returns its response."""

        def ended() -> dict[str, Any]:
            response = self.get(f"/v1/responses/{response_id}")
            return response if response["status"] in FINAL_STATUSES else {}

        return wait_until(ended, timeout, what="the end of the turn")


def openai_client(stack: Installation, user: AccountOwner) -> OpenAI:
    """Return the official client, with the token of a user."""
    return OpenAI(base_url=f"{stack.addresses()[0]}/v1", api_key=user.token, timeout=60)


class WorkerSupervisor:
    """Restarts workers that die and releases their jobs, in a thread."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.restarts = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "WorkerSupervisor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            for child in self.installation.workers():
                if not child.running:
                    self.installation.release_jobs(child)
                    child.clear()
                    child.start()
                    self.restarts += 1
        # A child dies with the thread that started it (PR_SET_PDEATHSIG): stop the workers before this thread ends.
        for child in self.installation.workers():
            child.stop(15)


def record_time(measurement: str, seconds: float) -> None:
    """Append a measured time to the file that SANGHA_TIMES names, if it is set."""
    if path := os.environ.get("SANGHA_TIMES"):
        with Path(path).open("a") as file:
            file.write(f"{measurement}: {seconds:.3f} s\n")
