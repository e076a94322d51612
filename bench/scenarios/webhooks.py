"""Webhooks: from an event to the request at its receiver, idle, beside a dead endpoint, and over kill -9.

The events are recorded by this process, which nudges the relay as a web process does; all else is the platform's.
"""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.figures import Figure, at_least, at_most
from bench.harness.processes import restart
from bench.harness.sse import CheckFailed
from bench.harness.stack import LIGHT_POOLS, RunningPlatform
from bench.scenario import Bench
from models.accounts.accounts import Caller, Role
from models.accounts.audit import RequestOrigin
from models.delivery import events
from models.platform.database import Database, fetch_all
from models.platform.ids import new_id
from models.platform.redis_client import connect
from pipelines.delivery import webhook_endpoints
from pipelines.delivery.webhook_endpoints import EndpointValues
from tasks.queue import Queue

#: Events one after the other; at once; that wait for a dead endpoint; and of a platform whose processes are killed.
IDLE, BURST, DEAD, KILLED = 100, 1000, 10_000, 10_000

#: Events beside the dead endpoint; seconds between two events.
BESIDE, PAUSE = 200, 0.1

#: Seconds between two kills, and those that deliveries may take.
KILL_INTERVAL, PATIENCE = 3.0, 600.0

#: The processes that are killed.
KILLED_PROCESSES = ("worker-light", "scheduler", "web")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore connections that were lost with a killed worker."""


class Receiver:
    """Accepts webhooks, and keeps the times at which each event arrived."""

    def __init__(self) -> None:
        self.arrivals: dict[str, list[float]] = {}
        self.arrived = threading.Condition()
        self.server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL for endpoints."""
        return f"http://127.0.0.1:{self.server.server_port}/"

    def wait(self, count: int, seconds: float) -> bool:
        """Wait for so many different events."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.arrivals) >= count, seconds)

    def _arrive(self, event_id: str) -> None:
        with self.arrived:
            self.arrivals.setdefault(event_id, []).append(time.monotonic())
            self.arrived.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._arrive(self.headers["webhook-id"])
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Log nothing."""

        return Handler


class Publisher:
    """Records events of two accounts, and nudges the relay of this process."""

    def __init__(self, platform: RunningPlatform) -> None:
        settings = platform.settings
        self.settings = settings
        self.database = Database.open(settings, size=4, name="bench")
        self.queue = Queue(settings, self.database, connect(settings.redis_address))
        platform.tokens(2)
        with self.database.connection() as connection:
            rows = fetch_all(connection, "SELECT user_id, account_id FROM memberships ORDER BY created_at LIMIT 2")
        self.callers = [Caller(row["user_id"], row["account_id"], Role.OWNER) for row in rows]

    def add_endpoint(self, url: str, account: int = 0) -> str:
        """Create an endpoint of an account, which gets all events. Returns its id."""
        values = EndpointValues(url=url, event_types=["*"])
        endpoint, _ = webhook_endpoints.create(
            self.database, self.settings, self.callers[account], values, new_id("we"), RequestOrigin()
        )
        return endpoint.id

    def record(self, count: int = 1, account: int = 0) -> None:
        """Record events in one transaction."""
        with self.database.batch() as connection:
            for _ in range(count):
                events.record(connection, self.callers[account].account_id, "file.created", {"id": "file_1"})

    def close(self) -> None:
        """Close the connections."""
        self.queue.close()
        self.database.close()


def webhooks(bench: Bench) -> Sequence[Figure]:
    """Measure webhooks. Raises CheckFailed for an event that does not arrive."""
    with bench.stack.platform(engine="scripted", light_pools=LIGHT_POOLS, egress_allow=("127.0.0.1",)) as platform:
        publisher = Publisher(platform)
        try:
            return [*_idle(bench, publisher), *_dead(bench, publisher), *_killed(bench, platform, publisher)]
        finally:
            publisher.close()


def _idle(bench: Bench, publisher: Publisher) -> Iterator[Figure]:
    receiver = Receiver()
    publisher.add_endpoint(receiver.url)
    times = _one_by_one(bench, publisher, receiver, IDLE)
    yield Figure("event → request at the receiver, idle, p50", "ms", times, at_most(100))
    yield Figure("event → request at the receiver, idle, p99", "ms", times, at_most(100), quantile=0.99)
    began, known = time.monotonic(), len(receiver.arrivals)
    for _ in range(BURST):
        publisher.record()
    _require(receiver, known + BURST)
    yield Figure(f"{BURST} events at once to one endpoint", "/s", [BURST / (time.monotonic() - began)], at_least(50))


def _one_by_one(bench: Bench, publisher: Publisher, receiver: Receiver, count: int) -> list[float]:
    """Record events one after the other, and return the milliseconds until each arrives."""
    times = []
    for number in range(count):
        bench.progress.step(number, count, "events")
        known = set(receiver.arrivals)
        publisher.record()
        began = time.monotonic()
        _require(receiver, len(known) + 1)
        [event_id] = set(receiver.arrivals) - known
        times.append((receiver.arrivals[event_id][0] - began) * 1000)
        time.sleep(PAUSE)
    return times


def _dead(bench: Bench, publisher: Publisher) -> Iterator[Figure]:
    receiver = Receiver()
    publisher.add_endpoint(receiver.url)
    with _dead_server() as url:
        publisher.add_endpoint(url, account=1)
        for _ in range(DEAD // 100):
            publisher.record(100, account=1)
        times = _one_by_one(bench, publisher, receiver, BESIDE)
    name = f"event → request beside a dead endpoint with {DEAD} waiting"
    yield Figure(f"{name}, p50", "ms", times)
    yield Figure(f"{name}, longest", "ms", times, at_most(1000), quantile=1.0)


@contextmanager
def _dead_server() -> Iterator[str]:
    """Accept connections and answer nothing."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.close()


def _killed(bench: Bench, platform: RunningPlatform, publisher: Publisher) -> Iterator[Figure]:
    receiver, draw, kills = Receiver(), random.Random(0), 0
    publisher.add_endpoint(receiver.url)
    recording = threading.Thread(target=_record_slowly, args=(publisher,))
    recording.start()
    began = time.monotonic()
    while recording.is_alive() or len(receiver.arrivals) < KILLED:
        bench.progress.step(len(receiver.arrivals), KILLED, f"events, {kills} kills")
        child = platform.children[draw.choice(KILLED_PROCESSES)]
        child.kill()
        kills += 1
        restart(child)
        if time.monotonic() - began > PATIENCE:
            raise CheckFailed(f"{KILLED - len(receiver.arrivals)} of {KILLED} events did not arrive over {kills} kills")
        time.sleep(draw.uniform(0, KILL_INTERVAL))
    repeated = Counter({event_id: len(times) - 1 for event_id, times in receiver.arrivals.items()}).total()
    yield Figure(f"events lost over {kills} kill -9", "", [KILLED - len(receiver.arrivals)], at_most(0))
    yield Figure(f"requests repeated over {kills} kill -9", "", [repeated])


def _record_slowly(publisher: Publisher) -> None:
    for _ in range(KILLED // 50):
        publisher.record(50)
        time.sleep(PAUSE)


def _require(receiver: Receiver, count: int) -> None:
    if not receiver.wait(count, PATIENCE):
        raise CheckFailed(f"{count - len(receiver.arrivals)} of {count} events did not arrive")
