"""Read series from processes and servers during the load."""

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
from bench.harness.processes import process_tree
from bench.harness.stack import QUEUES, Stack, redis_queue_lengths
from bench.soak.open_loop import OperationLog
from bench.soak.series import Reading, SeriesSet
from models.journal.journal import TTL_ENDED
from models.platform.database import Connection, Database, fetch_all, fetch_one

#: Server processes: a reading of one costs more, and covers its child processes.
SERVERS = frozenset({"postgres", "valkey", "rabbitmq"})

#: Every so many readings the expensive series are read too.
EXPENSIVE_EVERY = 5

JOBS = """
SELECT count(*) FILTER (WHERE state = 'queued') AS due,
       count(*) FILTER (WHERE state = 'scheduled') AS later,
       count(*) FILTER (WHERE state = 'running') AS running,
       count(*) FILTER (WHERE state = 'waiting') AS waiting
FROM jobs WHERE state IN ('scheduled', 'queued', 'running', 'waiting')
"""

CONNECTIONS = """
SELECT count(*) AS count FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

# By default autovacuum waits for dead rows to exceed 50 and a fifth of the live ones.
TABLES = """
SELECT relname AS name, pg_total_relation_size(relid) AS bytes,
       greatest(n_dead_tup - 50 - n_live_tup / 5, 0) AS dead FROM pg_stat_user_tables
WHERE schemaname = 'public'
"""


class Processes:
    """All processes of the stack, by their pid files."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: dict[int, psutil.Process] = {}

    def ours(self) -> Reading:
        """Read memory, descriptors and threads of Sangha's processes."""
        return self._read(lambda name: name not in SERVERS, "memory", ours=True)

    def servers(self) -> Reading:
        """Read memory and descriptors of the servers, child processes included."""
        return self._read(lambda name: name in SERVERS, "servers", ours=False)

    def _read(self, wanted: Callable[[str], bool], panel: str, *, ours: bool) -> Reading:
        reading: dict[tuple[str, str], float] = {}
        for name, processes in self._trees(wanted):
            memory, resident, files, count = map(sum, zip(*map(_measure, processes), strict=True))
            reading |= {(panel, name): memory, ("files" if ours else "server files", name): files}
            reading |= {("resident", name): resident, ("threads", name): count} if ours else {}
        return reading

    def _trees(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Sequence[psutil.Process]]]:
        for file in sorted(self._run.glob("*.pid")):
            if wanted(file.stem):
                with suppress(psutil.NoSuchProcess, ValueError, FileNotFoundError):
                    leader = self._process(int(file.read_text()))
                    yield file.stem, process_tree(leader)

    def _process(self, pid: int) -> psutil.Process:
        if pid not in self._known:
            self._known[pid] = psutil.Process(pid)
        return self._known[pid]


def _measure(process: psutil.Process) -> tuple[float, float, float, float]:
    """Measure memory (unshared, resident), descriptors and threads of a process; zeros for one that has ended."""
    try:
        memory = process.memory_full_info()
        return memory.uss, memory.rss, process.num_fds(), process.num_threads()
    except psutil.Error:
        return 0.0, 0.0, 0.0, 0.0


class Tables:
    """Read jobs, connections and tables from Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(self) -> Reading:
        """Count unfinished jobs by state."""
        with self._database.connection() as connection:
            row = fetch_one(connection, JOBS) or {}
        return {("jobs", state): float(count) for state, count in row.items()}

    def sizes(self) -> Reading:
        """Read the connections, the size of each table, and its dead rows."""
        with self._database.connection() as connection:
            return self._sizes(connection)

    def _sizes(self, connection: Connection) -> Reading:
        reading: dict[tuple[str, str], float] = {
            ("connections", "postgres"): (fetch_one(connection, CONNECTIONS) or {})["count"]
        }
        for row in fetch_all(connection, TABLES):
            reading |= {("tables", row["name"]): float(row["bytes"]), ("dead", row["name"]): float(row["dead"])}
        return reading


class Keys:
    """Read clients and keys from Valkey."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def read(self) -> Reading:
        """Count clients, and keys by kind; every key is read."""
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
    """Return the kind of a key, by its name and remaining seconds, which show whether a journal's job has ended."""
    if key.startswith((b"sangha:journal:", b"sangha:events:")) and lifetime != -1:
        return "journals of ended jobs" if lifetime <= TTL_ENDED else "journals of unfinished jobs"
    return "that never expire" if lifetime == -1 else "others that expire"


class Queues:
    """Read the messages of each queue from the broker."""

    def __init__(self, stack: Stack, client: redis.Redis) -> None:
        url = stack.settings.broker_url
        self._channel: Any = pika.BlockingConnection(pika.URLParameters(url)).channel() if url else None
        self._client = client

    def read(self) -> Reading:
        """Count messages by queue; an undeclared queue has none."""
        if self._channel is None:
            lengths = redis_queue_lengths(self._client)
        else:
            lengths = {name: self._rabbitmq_length(name) for name in QUEUES}
        return {("queues", name): float(length) for name, length in lengths.items()}

    def _rabbitmq_length(self, name: str) -> int:
        try:
            return int(self._channel.queue_declare(name, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker:  # it is not declared
            self._channel = self._channel.connection.channel()
            return 0


class Operations:
    """Read the operations done, and the times of turns."""

    def __init__(self, log: OperationLog) -> None:
        self._log = log
        self._before = (time.monotonic(), log.counts().done)

    def running(self) -> Reading:
        """Count operations that have not ended."""
        return {("jobs", "operations"): float(self._log.counts().running)}

    def read(self) -> Reading:
        """Read operations a second, and quantiles of the turns' times, since the last reading."""
        now, done = time.monotonic(), self._log.counts().done
        (then, before), self._before = self._before, (now, done)
        times = self._log.take_times()
        reading = {("rate", "done"): (done - before) / (now - then)}
        if times:
            firsts, ends = zip(*times, strict=True)
            reading[("latency", "first token, median")] = quantile(firsts, 0.5)
            reading[("latency", "end, median")] = quantile(ends, 0.5)
            reading[("latency", "end, 99 %")] = quantile(ends, 0.99)
        return reading


class Monitor:
    """Reads all series at an interval, the expensive ones at a longer one, in a thread."""

    def __init__(self, stack: Stack, log: OperationLog, interval: float) -> None:
        self.series = SeriesSet()
        self._log, self._interval = log, interval
        self._database = Database(stack.settings.postgres_dsn, size=1, name="soak")
        client = redis.Redis.from_url(stack.settings.redis_address)
        processes, tables, operations = Processes(stack.folder / "run"), Tables(self._database), Operations(log)
        self._cheap = [processes.ours, tables.jobs, Queues(stack, client).read, operations.running]
        self._expensive = [processes.servers, tables.sizes, Keys(client).read, operations.read]
        self._valkey = client
        self._stopping = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join()
        self._database.close()
        self._valkey.close()

    def _run(self) -> None:
        began, number = time.monotonic(), 0
        try:
            while not self._stopping.wait(max(0.0, began + number * self._interval - time.monotonic())):
                for read in [*self._cheap, *(self._expensive if number % EXPENSIVE_EVERY == 0 else [])]:
                    self.series.add(time.monotonic() - began, self._log.counts().done, read())
                number += 1
        except Exception as error:  # noqa: BLE001 - it is in the report
            self.error = error
