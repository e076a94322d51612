"""What is read from processes and servers while the load goes on."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import psutil  # type: ignore[import-untyped]
import redis

from bench.figures import quantile
from bench.soak.pace import Ledger
from bench.soak.series import Reading, Records
from bench.stack import Stack
from models.jobs.catalogue import CATALOGUE
from models.journal.journal import MEMORY_ENDED
from models.platform.database import Connection, Database, all_of, one

#: Parts that are not ours: each of their readings costs more, and tells of many processes.
SERVERS = frozenset({"postgres", "valkey", "rabbitmq"})

#: Names of queues at the broker.
QUEUES = tuple(sorted({kind.queue for kind in CATALOGUE.values()}))

#: Every so many readings what costs more is read as well.
SELDOM = 5

JOBS = """
SELECT count(*) FILTER (WHERE state = 'queued' AND run_at <= now()) AS due,
       count(*) FILTER (WHERE state = 'queued' AND run_at > now()) AS later,
       count(*) FILTER (WHERE state = 'running') AS running,
       count(*) FILTER (WHERE state = 'waiting') AS waiting
FROM jobs WHERE state IN ('queued', 'running', 'waiting')
"""

CONNECTIONS = """
SELECT count(*) AS count FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

# Dead rows up to a fifth of the living ones and 50 are what autovacuum waits for by default.
TABLES = """
SELECT relname AS name, pg_total_relation_size(relid) AS bytes,
       greatest(n_dead_tup - 50 - n_live_tup / 5, 0) AS dead FROM pg_stat_user_tables
WHERE schemaname = 'public'
"""


class Processes:
    """All processes of the stack, by the pids that its parts left in a folder."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: dict[int, psutil.Process] = {}

    def ours(self) -> Reading:
        """Memory, descriptors and threads of Sangha's own processes."""
        return self._read(lambda name: name not in SERVERS, "memory", ours=True)

    def servers(self) -> Reading:
        """Memory and descriptors of the servers, each with all that it started."""
        return self._read(lambda name: name in SERVERS, "servers", ours=False)

    def _read(self, wanted: Callable[[str], bool], panel: str, *, ours: bool) -> Reading:
        found: dict[tuple[str, str], float] = {}
        for name, processes in self._parts(wanted):
            memory, resident, files, count = map(sum, zip(*map(_measure, processes), strict=True))
            found |= {(panel, name): memory, ("files" if ours else "server files", name): files}
            found |= {("resident", name): resident, ("threads", name): count} if ours else {}
        return found

    def _parts(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Sequence[psutil.Process]]]:
        for file in sorted(self._run.glob("*.pid")):
            if wanted(file.stem):
                with suppress(psutil.NoSuchProcess, ValueError, FileNotFoundError):
                    leader = self._process(int(file.read_text()))
                    yield file.stem, [leader, *leader.children(recursive=True)]

    def _process(self, pid: int) -> psutil.Process:
        if pid not in self._known:
            self._known[pid] = psutil.Process(pid)
        return self._known[pid]


def _measure(process: psutil.Process) -> tuple[float, float, float, float]:
    """Memory that is its alone, and all, descriptors and threads of a process; nothing of one that has ended."""
    try:
        memory = process.memory_full_info()
        return memory.uss, memory.rss, process.num_fds(), process.num_threads()
    except psutil.Error:
        return 0.0, 0.0, 0.0, 0.0


class Tables:
    """Postgres: jobs, connections, tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(self) -> Reading:
        """Unfinished jobs, by what they wait for."""
        with self._database.connection() as connection:
            row = one(connection, JOBS) or {}
        return {("jobs", state): float(count) for state, count in row.items()}

    def sizes(self) -> Reading:
        """Connections; what each table takes, and how many of its rows are dead."""
        with self._database.connection() as connection:
            return self._sizes(connection)

    def _sizes(self, connection: Connection) -> Reading:
        found: dict[tuple[str, str], float] = {
            ("connections", "postgres"): (one(connection, CONNECTIONS) or {})["count"]
        }
        for row in all_of(connection, TABLES):
            found |= {("tables", row["name"]): float(row["bytes"]), ("dead", row["name"]): float(row["dead"])}
        return found


class Keys:
    """Valkey: memory, clients, and keys by how long they stay."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def read(self) -> Reading:
        """All of it. Every key is looked at."""
        info = self._client.info()
        kinds = Counter(dict.fromkeys(("journals of ended jobs", "journals of unfinished jobs"), 0))
        for keys in self._batches():
            kinds.update(map(kind_of, keys, self._lifetimes(keys)))
        clients = {("connections", "valkey"): float(info["connected_clients"])}
        return clients | {("keys", kind): float(count) for kind, count in kinds.items()}

    def _batches(self) -> Iterator[Sequence[bytes]]:
        cursor: Any = None
        while cursor != 0:
            cursor, keys = self._client.scan(cursor or 0, count=1000)
            yield [key for key in keys if isinstance(key, bytes)]

    def _lifetimes(self, keys: Sequence[bytes]) -> Sequence[int]:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.ttl(key)
        lifetimes: list[int] = pipeline.execute()
        return lifetimes


def kind_of(key: bytes, lifetime: int) -> str:
    """What a key is, by its name and its seconds left: those of a journal tell whether its job has ended."""
    if key.startswith((b"sangha:journal:", b"sangha:events:")) and lifetime != -1:
        return "journals of ended jobs" if lifetime <= MEMORY_ENDED else "journals of unfinished jobs"
    return "that never expire" if lifetime == -1 else "others that expire"


class Queues:
    """The broker: how many messages stand in each queue, and in those of the refused."""

    def __init__(self, stack: Stack, client: redis.Redis) -> None:
        url = stack.settings.broker_url
        self._channel = pika.BlockingConnection(pika.URLParameters(url)).channel() if url else None
        self._client = client

    def read(self) -> Reading:
        """Messages by queue; queues that were not declared yet have none."""
        return {("queues", name): float(self._depth(name)) for name in QUEUES}

    def _depth(self, name: str) -> int:
        if self._channel is None:
            depth: Any = self._client.llen(f"dramatiq:{name}")
            return int(depth)
        try:
            return int(self._channel.queue_declare(name, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker:  # it is not there
            self._channel = self._channel.connection.channel()
            return 0


class Answers:
    """The load itself: how much was done, and how long turns took."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._before = (time.monotonic(), ledger.count().done)

    def under_way(self) -> Reading:
        """Work that has begun and not ended."""
        count = self._ledger.count()
        return {("jobs", "work under way"): float(count.begun - count.done - count.failed)}

    def read(self) -> Reading:
        """Since the last time: work a second, and quantiles of the turns' time."""
        now, done = time.monotonic(), self._ledger.count().done
        (then, before), self._before = self._before, (now, done)
        times = self._ledger.take_times()
        found = {("rate", "done"): (done - before) / (now - then)}
        if times:
            firsts, ends = zip(*times, strict=True)
            found[("latency", "first token, median")] = quantile(firsts, 0.5)
            found[("latency", "end, median")] = quantile(ends, 0.5)
            found[("latency", "end, 99 %")] = quantile(ends, 0.99)
        return found


class Watch:
    """Reads everything at an interval, what costs more at a longer one, in a thread of its own."""

    def __init__(self, stack: Stack, ledger: Ledger, every: float) -> None:
        self.records = Records()
        self._ledger, self._every = ledger, every
        self._database = Database(stack.settings.postgres_dsn, size=1, name="soak")
        client = redis.Redis.from_url(stack.settings.redis_address)
        processes, tables, answers = Processes(stack.folder / "run"), Tables(self._database), Answers(ledger)
        self._often = [processes.ours, tables.jobs, Queues(stack, client).read, answers.under_way]
        self._seldom = [processes.servers, tables.sizes, Keys(client).read, answers.read]
        self._memory = client
        self._leave = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._leave.set()
        self._thread.join()
        self._database.close()
        self._memory.close()

    def _run(self) -> None:
        began, number = time.monotonic(), 0
        try:
            while not self._leave.wait(max(0.0, began + number * self._every - time.monotonic())):
                for read in [*self._often, *(self._seldom if number % SELDOM == 0 else [])]:
                    self.records.add(time.monotonic() - began, self._ledger.count().done, read())
                number += 1
        except Exception as error:  # noqa: BLE001 - whoever reads the report is told
            self.error = error
