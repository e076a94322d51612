"""What must not grow: threads, descriptors, connections, streams. Counted when all is warm, and again when all is calm.

A process that lived through everything is held to what it had itself, one that was started since to the most that one
of its like had. Pools of threads and connections fill as they are used, and keep what they have: a process may have
grown by what its pools can hold, once; a leak grows with every fault.
"""

import http.client
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from bench.chaos.slots import lost
from bench.chaos.violations import Violation
from models.platform.database import Database, fetch_all
from models.platform.redis_client import connect
from models.platform.settings import Settings

#: Threads by which a process may have grown: Starlette's pool of 40 gives its idle ones back, the smaller ones don't.
THREADS = 16

#: Descriptors: a pool of connections to Postgres and one to Redis, and what is just being closed.
DESCRIPTORS = 32

#: Connections to Postgres and to Redis, a process: the pools of the largest, once more.
CONNECTIONS = 10

#: The keys of journals.
JOURNALS = ("sangha:journal:*", "sangha:events:*")

#: Seconds that idle threads and connections have to go.
PATIENCE, PAUSE = 30.0, 0.5

#: Seconds after which a transaction that does nothing, or a statement, is forgotten rather than slow.
LONGEST_TRANSACTION = 15.0

CONNECTED = """
SELECT application_name AS name, count(*) AS count FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1
"""

FORGOTTEN = """
SELECT pid, application_name, state, left(query, 200) AS query, now() - xact_start AS age FROM pg_stat_activity
WHERE datname = current_database() AND xact_start < now() - make_interval(secs => %(longest)s)
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds."""

    pid: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What there was when all was warm: by process, and of connections by what they go to."""

    processes: Mapping[str, Held]
    connections: Mapping[str, int]

    @classmethod
    def take(cls, pids: Mapping[str, int], settings: Settings) -> "Baseline":
        """Count. `pids` are those of Sangha's processes, `settings` lead to the servers themselves."""
        return cls({name: held(pid) for name, pid in pids.items()}, connections(settings))

    def violations(self, pids: Mapping[str, int], settings: Settings) -> Sequence[Violation]:
        """What is more than it may be, and stays so."""
        deadline = time.monotonic() + PATIENCE
        while (found := list(self._found(pids, settings))) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        addresses = [
            ("127.0.0.1", port) for name, pid in pids.items() if kind_of(name) == "web" for port in _doors(pid)
        ]
        return [*found, *lost(pids, addresses, settings)]

    def _found(self, pids: Mapping[str, int], settings: Settings) -> Iterator[Violation]:
        for name, pid in pids.items():
            yield from self.grown(name, held(pid))
            yield from streams(name, pid)
        yield from kept_for_ever(settings)
        now = connections(settings)
        for server, count in now.items():
            if count > self.connections.get(server, 0) + CONNECTIONS * len(pids):
                yield Violation("leak", server, f"{self.connections.get(server, 0)} connections before, {count} now")
        yield from forgotten(settings)

    def grown(self, name: str, now: Held) -> Iterator[Violation]:
        """What a process holds too much of."""
        before = self._before(name, now)
        for what, had, has, more in (
            ("threads", before.threads, now.threads, THREADS),
            ("descriptors", before.descriptors, now.descriptors, DESCRIPTORS),
        ):
            if has > had + more:
                yield Violation("leak", name, f"{had} {what} before, {has} now; {more} more are none")

    def _before(self, name: str, now: Held) -> Held:
        own = self.processes.get(name)
        if own is not None and own.pid == now.pid:
            return own
        like = [each for other, each in self.processes.items() if kind_of(other) == kind_of(name)]
        return Held(0, max(each.threads for each in like), max(each.descriptors for each in like))


def kind_of(name: str) -> str:
    """What a process is, without its letter: `web-a` is a `web`."""
    return name.partition("-")[0]


def held(pid: int) -> Held:
    """What a process holds; nothing when it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Held(pid, process.num_threads(), process.num_fds())
    except psutil.NoSuchProcess:
        return Held(pid, 0, 0)


def connections(settings: Settings) -> Mapping[str, int]:
    """Connections to Postgres, by the name that they go by, and to Redis; this one is none."""
    database, client = Database(settings.postgres_dsn, size=1, name="leaks"), connect(settings.redis_address)
    try:
        with database.connection() as connection:
            counts = Counter({f"postgres {row['name']}": int(row["count"]) for row in fetch_all(connection, CONNECTED)})
        counts["redis"] = int(client.info("clients")["connected_clients"])
        return {name: count for name, count in counts.items() if name not in ("postgres leaks", "postgres ")}
    finally:
        database.close()
        client.close()


def forgotten(settings: Settings) -> Iterator[Violation]:
    """Transactions that nobody ends."""
    database = Database(settings.postgres_dsn, size=1, name="leaks")
    try:
        with database.connection() as connection:
            for row in fetch_all(connection, FORGOTTEN, {"longest": LONGEST_TRANSACTION}):
                detail = f"{row['state']} since {row['age']}: {row['query']}"
                yield Violation("leak", f"postgres {row['application_name']}", detail)
    finally:
        database.close()


def kept_for_ever(settings: Settings) -> Iterator[Violation]:
    """Journals that Redis is never to forget."""
    client = connect(settings.redis_address)
    try:
        for pattern in JOURNALS:
            for key in client.scan_iter(pattern, count=1000):
                if client.ttl(key) == -1:
                    yield Violation("leak", "redis", f"{key.decode()} is kept for ever")
    finally:
        client.close()


def streams(name: str, pid: int) -> Iterator[Violation]:
    """Streams that a web process still holds open, though no client does."""
    for port in _doors(pid) if kind_of(name) == "web" else ():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        except (OSError, http.client.HTTPException) as error:
            yield Violation("leak", name, f"it can't be asked: {error!r}")
            continue
        finally:
            connection.close()
        open_ = next((float(line.split()[1]) for line in lines if line.startswith("sangha_open_streams ")), 0.0)
        if open_:
            yield Violation("leak", name, f"{open_:g} event streams are open, and nobody listens")


def _doors(pid: int) -> Sequence[int]:
    try:
        listening = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return []
    return [each.laddr.port for each in listening if each.status == psutil.CONN_LISTEN]
