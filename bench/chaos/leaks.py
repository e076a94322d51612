"""Check that threads, descriptors, connections and streams do not grow: counted after the warm-up, and at the end.

A process that lived through the run is compared with itself, a restarted one with the largest of its kind. Pools of
threads and connections grow with use, once, to their size, so a process may have grown by that; a leak grows with every
fault. A web process may have all threads of its pools, whatever it had after the warm-up.
"""

import http.client
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.chaos.violations import Violation
from bench.harness.client import Address, open_connection
from models.platform.database import Database, fetch_all
from models.platform.redis_client import connect
from models.platform.settings import Settings
from web.access import hashing_pool
from web.api.system import probes
from web.http import threads

#: Threads by which a process may have grown.
THREADS = 16

#: Threads that a process may have, by its kind, if that is more. A pool creates a thread when no other one is idle and
#: keeps it, so a web process reaches the size of its pools in its busiest moment, in the warm-up or after it: measured,
#: 25 threads when idle, and 88 after 150 and after 350 concurrent requests. WEB_OWN_THREADS bounds those of no pool.
WEB_OWN_THREADS = 32
#: The worker of the endpoint loads the embedder, which has threads, with its first recall: measured, 23 threads before
#: and 42 after it.
MOST_THREADS = {
    "web": threads.THREADS + hashing_pool.THREADS + probes.THREADS + WEB_OWN_THREADS,
    "upstream": 64,
}

#: Descriptors by which a process may have grown: the pools of a worker of nine pools have 38 connections to Postgres,
#: and there are closing connections.
DESCRIPTORS = 48

#: Connections to Postgres and to Redis by which a process may have grown: the pools of the largest, once more.
CONNECTIONS = 10

#: The keys of journals.
JOURNALS = ("sangha:journal:*", "sangha:events:*")

#: Seconds that idle threads and connections have to be released, and between two checks.
PATIENCE, INTERVAL = 30.0, 0.5

#: Seconds that a web process has to send its metrics.
METRICS_TIMEOUT = 5.0

#: Seconds after which an idle transaction, or a statement, counts as leaked.
LONGEST_TRANSACTION = 15.0

CONNECTED = """
SELECT application_name AS name, count(*) AS count FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1
"""

LONG_TRANSACTIONS = """
SELECT pid, application_name, state, left(query, 200) AS query, now() - xact_start AS age FROM pg_stat_activity
WHERE datname = current_database() AND xact_start < now() - make_interval(secs => %(longest)s)
"""


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """The threads and descriptors of a process."""

    pid: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The usage after the warm-up: of each process, and connections by client."""

    processes: Mapping[str, ProcessUsage]
    connections: Mapping[str, int]

    @classmethod
    def take(cls, pids: Mapping[str, int], settings: Settings) -> "Baseline":
        """Read the usage. `pids` are those of Sangha's processes; `settings` lead to the servers directly."""
        return cls({name: usage_of(pid) for name, pid in pids.items()}, count_connections(settings))

    def check(self, pids: Mapping[str, int], settings: Settings, webs: Mapping[str, Address]) -> Sequence[Violation]:
        """Report what exceeds the baseline, and still does after PATIENCE.

        webs  where the web processes serve their metrics, by name
        """
        deadline = time.monotonic() + PATIENCE
        while (violations := list(self._check(pids, settings, webs))) and time.monotonic() < deadline:
            time.sleep(INTERVAL)
        return violations

    def _check(self, pids: Mapping[str, int], settings: Settings, webs: Mapping[str, Address]) -> Iterator[Violation]:
        for name, pid in pids.items():
            yield from self.check_process(name, usage_of(pid))
        for name, address in webs.items():
            yield from check_streams(name, address)
        yield from check_journals(settings)
        for client, count in count_connections(settings).items():
            before = self.connections.get(client, 0)
            if count > before + CONNECTIONS * len(pids):
                yield Violation("leak", client, f"{before} connections before, {count} now")
        yield from check_transactions(settings)

    def check_process(self, name: str, now: ProcessUsage) -> Iterator[Violation]:
        """Compare the usage of a process with its baseline."""
        before = self._baseline_of(name, now)
        most_threads = max(before.threads + THREADS, MOST_THREADS.get(kind_of(name), 0))
        for resource, had, has, most in (
            ("threads", before.threads, now.threads, most_threads),
            ("descriptors", before.descriptors, now.descriptors, before.descriptors + DESCRIPTORS),
        ):
            if has > most:
                found = f"; sockets by peer: {peers_of(now.pid)}" if resource == "descriptors" else ""
                yield Violation("leak", name, f"{had} {resource} before, {has} now; at most {most} are allowed{found}")

    def _baseline_of(self, name: str, now: ProcessUsage) -> ProcessUsage:
        own = self.processes.get(name)
        if own is not None and own.pid == now.pid:
            return own
        same_kind = [each for other, each in self.processes.items() if kind_of(other) == kind_of(name)]
        most_descriptors = max(each.descriptors for each in same_kind)
        return ProcessUsage(0, max(each.threads for each in same_kind), most_descriptors)


def kind_of(name: str) -> str:
    """Return the kind of a process: `web-a` is a `web`."""
    return name.partition("-")[0]


def usage_of(pid: int) -> ProcessUsage:
    """Read the usage of a process; zeros when it has ended."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return ProcessUsage(pid, process.num_threads(), process.num_fds())
    except psutil.NoSuchProcess:
        return ProcessUsage(pid, 0, 0)


def peers_of(pid: int) -> Mapping[str, int]:
    """Count the sockets of a process, by the port and state of TCP and by the kind of others."""
    try:
        sockets = psutil.Process(pid).net_connections(kind="all")
    except psutil.Error:
        return {}
    names = (
        f"{each.raddr.port} {each.status}" if each.raddr and each.status != "NONE" else str(each.family)
        for each in sockets
    )
    return dict(Counter(names))


def count_connections(settings: Settings) -> Mapping[str, int]:
    """Count connections to Postgres, by application name, and to Redis, without our own."""
    rows = _query(settings, CONNECTED)
    counts = Counter({f"postgres {row['name']}": int(row["count"]) for row in rows})
    with closing(connect(settings.redis_address)) as client:
        counts["redis"] = int(client.info("clients")["connected_clients"])
    return {name: count for name, count in counts.items() if name not in ("postgres leaks", "postgres ")}


def check_transactions(settings: Settings) -> Iterator[Violation]:
    """Report transactions that have been idle for too long."""
    for row in _query(settings, LONG_TRANSACTIONS, {"longest": LONGEST_TRANSACTION}):
        detail = f"{row['state']} since {row['age']}: {row['query']}"
        yield Violation("leak", f"postgres {row['application_name']}", detail)


def check_journals(settings: Settings) -> Iterator[Violation]:
    """Report journals that never expire."""
    with closing(connect(settings.redis_address)) as client:
        for pattern in JOURNALS:
            for key in client.scan_iter(pattern, count=1000):
                if client.ttl(key) == -1:
                    yield Violation("leak", "redis", f"{key.decode()} never expires")


def check_streams(name: str, address: Address) -> Iterator[Violation]:
    """Report streams that a web process still has open after all clients have disconnected."""
    with closing(open_connection(address, METRICS_TIMEOUT)) as connection:
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        except (OSError, http.client.HTTPException) as error:
            yield Violation("leak", name, f"its metrics cannot be read: {error!r}")
            return
    open_ = next((float(line.split()[1]) for line in lines if line.startswith("sangha_open_streams ")), 0.0)
    if open_:
        yield Violation("leak", name, f"{open_:g} event streams are open without a client")


def _query(
    settings: Settings, statement: str, parameters: Mapping[str, Any] | None = None
) -> Sequence[Mapping[str, Any]]:
    with (
        closing(Database(settings.postgres_dsn, size=1, name="leaks")) as database,
        database.connection() as connection,
    ):
        return fetch_all(connection, statement, parameters or {})
