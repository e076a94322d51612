"""Webhooks: from an event to its receiver, beside an endpoint that is down, and over kill -9 of every process."""

import random
import time
from collections.abc import Iterator, Sequence

from bench.figures import Figure, at_most
from bench.harness.processes import restart
from bench.harness.sse import CheckFailed
from bench.harness.stack import LIGHT_POOLS, WITHOUT_MEMORY, RunningPlatform
from bench.harness.waiting import wait_until
from bench.harness.webhook_receiver import WebhookReceiver, webhook_receiver
from bench.scenario import Bench
from models.delivery import events
from models.delivery.event_types import EventType
from models.platform.database import Database, fetch_one

#: Background turns of which a webhook is timed, and seconds between two of them.
TURNS, PAUSE = 60, 0.05

#: Events that wait for the endpoint that is down, and those that are sent over kill -9.
WAITING, KILLED_EVENTS = 10_000, 10_000

#: Events that one transaction records.
BATCH = 100

#: Seconds between two kills, and those that all webhooks may take.
KILL_INTERVAL, PATIENCE = 3.0, 600.0

#: The processes that are killed.
KILLED = ("worker-1", "worker-light", "scheduler", "web")

SCRIPT = "tokens=1,rate=0"


def webhooks(bench: Bench) -> Sequence[Figure]:
    """Measure milliseconds from events to their receiver, and events lost and repeated over kill -9."""
    with (
        webhook_receiver() as receiver,
        bench.stack.platform(
            engine="scripted", script=SCRIPT, light_pools=LIGHT_POOLS, egress_allow=("127.0.0.1",)
        ) as platform,
    ):
        database = Database.open(platform.settings, size=2, name="bench")
        try:
            run = _Run(bench, platform, receiver, database)
            return [*run.idle(), *run.beside_a_dead_endpoint(), *run.killed()]
        finally:
            receiver.release.set()
            database.close()


class _Run:
    """The measurements on a running platform. Each kind of event has an endpoint of its own."""

    def __init__(self, bench: Bench, platform: RunningPlatform, receiver: WebhookReceiver, database: Database) -> None:
        self._bench = bench
        self._platform = platform
        self._receiver = receiver
        self._database = database
        self._client = platform.client()
        self._add("live", "response.*")

    def idle(self) -> Iterator[Figure]:
        """Measure webhooks while nothing else is sent."""
        times = self._times("idle")
        yield Figure("event → webhook at its receiver, idle", "ms", times, at_most(100))

    def beside_a_dead_endpoint(self) -> Iterator[Figure]:
        """Measure webhooks while many wait for an endpoint that does not answer."""
        self._add("never", "job.dead")
        self._record("job.dead", WAITING)
        times = self._times(f"beside {WAITING} events for a dead endpoint")
        yield Figure(f"the same beside {WAITING:,} for a dead endpoint", "ms", times)
        yield Figure("the slowest of these", "ms", [max(times)], at_most(1000))

    def killed(self) -> Iterator[Figure]:
        """Kill all processes one after the other until all events have arrived."""
        self._add("killed", "file.created")
        ids, began, kills, draw = self._record("file.created", KILLED_EVENTS), time.monotonic(), 0, random.Random(0)
        while len(arrived := self._arrived("killed")) < len(ids):
            self._bench.progress.step(len(arrived), len(ids), f"events, {kills} kills")
            child = self._platform.children[draw.choice(KILLED)]
            child.kill()
            kills += 1
            restart(child)
            if time.monotonic() - began > PATIENCE:
                break
            time.sleep(draw.uniform(0, KILL_INTERVAL))
        seconds = time.monotonic() - began
        received = self._receiver.received("killed")
        if invalid := [each for each in received if not each.valid]:
            raise CheckFailed(f"{len(invalid)} webhooks have a wrong signature, such as {invalid[0]}")
        yield Figure(f"events sent over {kills} kill -9", "/s", [len(arrived) / seconds])
        yield Figure("events lost over kill -9", "", [len(ids - set(arrived.values()))], at_most(0))
        yield Figure(
            "ids of one event over kill -9", "", [len(arrived) / max(1, len(set(arrived.values())))], at_most(1)
        )
        yield Figure("webhooks repeated over kill -9", "", [len(received) - len(arrived)])

    def _arrived(self, path: str) -> dict[str, str]:
        """Return what each event is about that has arrived, by its id."""
        return {each.event_id: each.data_id for each in self._receiver.received(path)}

    def _add(self, path: str, *event_types: str) -> None:
        body = {"url": f"{self._receiver.url}/{path}", "event_types": event_types}
        self._receiver.secrets[path] = self._client.post("/v1/webhook_endpoints", body)["signing_secret"]

    def _times(self, name: str) -> list[float]:
        """Return milliseconds from the events of background turns to their arrival."""
        return [self._time(number, name) for number in range(TURNS)]

    def _time(self, number: int, name: str) -> float:
        self._bench.progress.step(number, TURNS, name)
        before = len(self._receiver.received("live"))
        self._client.post("/v1/responses", {"input": "hello", "background": True, **WITHOUT_MEMORY})
        wait_until(lambda: len(self._receiver.received("live")) > before, 30, interval=0.005)
        last = self._receiver.received("live")[-1]
        time.sleep(PAUSE)
        return (last.at - self._recorded_at(last.event_id)) * 1000

    def _recorded_at(self, event_id: str) -> float:
        statement = "SELECT extract(epoch FROM created_at)::float8 AS at FROM account_events WHERE id = %(id)s"
        with self._database.connection() as connection:
            row = fetch_one(connection, statement, {"id": event_id})
        assert row is not None
        return float(row["at"])

    def _record(self, type: EventType, count: int) -> set[str]:
        """Record events as the platform does. Returns what they are about."""
        account_id = self._client.get("/v1/account")["id"]
        names = [f"{type}-{number}" for number in range(count)]
        for begin in range(0, count, BATCH):
            with self._database.batch() as connection:
                for name in names[begin : begin + BATCH]:
                    events.record(connection, account_id, type, {"id": name})
        return set(names)
