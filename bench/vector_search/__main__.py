"""`python -m bench.vector_search`: compare methods on a Postgres of its own, one after the other."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import psycopg
from psycopg.rows import dict_row

from bench.command import HELP
from bench.vector_search.data import VectorGenerator, Vectors, load
from bench.vector_search.methods import METHODS, Exact
from models.memory.spaces import Space
from models.platform.database import Connection
from ops.embedded_servers import Postgres, running_server

#: Memories of the spaces that are searched, and the number and size of the others.
SEARCHED, OTHERS, OTHERS_SIZE = {1: 100_000, 2: 40_000, 3: 10_000}, 1_000, 50

QUERIES, WARM_UP, INSERTS, LIMIT, NEAREST = 60, 5, 600, 100, 20

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """The times of a repeated action in milliseconds: p50 and p95, and CPU of this process and Postgres's."""

    p50: float
    p95: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p95:.1f} ({self.cpu:.1f})"


@click.command(context_settings=HELP)
@click.argument("names", nargs=-1, metavar="[METHOD]…")
@click.option("--scale", default=1.0, help="Multiply the numbers of memories.")
@click.option("--indexes", default=0, help="Also measure inserts with so many indexes of single spaces.")
def main(names: Sequence[str], scale: float, indexes: int) -> None:
    """Print, per method: build, size, whether it holds back vacuum, inserts, and searches of each size.

    Times are wall-clock p50 / p95, and in brackets CPU, which is more robust on a busy machine.
    """
    sizes = {space_id: int(count * scale) for space_id, count in SEARCHED.items()}
    with server() as dsn, connect(dsn) as connection:
        connection.execute("CREATE EXTENSION vector; CREATE TABLE dead_rows (number integer)")
        generator = VectorGenerator()
        load(connection, generator, sizes | dict.fromkeys(range(100, 100 + OTHERS), OTHERS_SIZE))
        queries = generator.vectors(QUERIES)
        exact = {space_id: nearest(connection, Exact(), space_id, queries) for space_id in sizes}
        for method in [each() for each in METHODS if not names or each.name in names]:
            click.echo("\n".join(measure(dsn, method, sizes, queries, exact)))
            with connect(dsn) as fresh:
                method.drop(fresh)
        if indexes:
            click.echo(f"insert with {indexes} indexes of single spaces, ms: {with_indexes(dsn, sizes, indexes)}")


@contextmanager
def server() -> Iterator[str]:
    """Run Postgres in a temporary folder; yields its connection string."""
    with tempfile.TemporaryDirectory(prefix="sangha-vectors-") as name:
        folder = Path(name)
        for part in ("run", "logs"):
            (folder / part).mkdir()
        folder.chmod(0o711)  # Postgres runs as another user when this is root
        postgres = Postgres(folder / "postgres", folder / "sockets")
        with running_server(postgres, folder / "run", folder / "logs"):
            yield postgres.dsn


def connect(dsn: str) -> Connection:
    """Open a connection as the platform does."""
    return Connection.connect(dsn, autocommit=True, row_factory=dict_row)


def measure(
    dsn: str, method: Exact, sizes: Mapping[int, int], queries: Vectors, exact: Mapping[int, list[list[int]]]
) -> Iterator[str]:
    """Measure a method; returns lines of text."""
    with connect(dsn) as connection:
        seconds, held = build(dsn, connection, method, sizes)
        size = f"{method.size(connection) / 1e6:.0f} MB"
        yield f"{method.name}: built in {seconds:.1f} s, {size}, held back vacuum for {held:.1f} s"
        for space_id, count in sizes.items():
            found = nearest(connection, method, space_id, queries)
            share = np.mean([len({*a} & {*b}) / NEAREST for a, b in zip(found, exact[space_id], strict=True)])
            searches = iter(queries)
            cost = timed(connection, lambda: method.search(connection, space_id, next(searches), LIMIT), QUERIES)  # noqa: B023
            yield f"    search of {count:,}, ms: {cost}, recall at {NEAREST}: {share:.3f}"
        yield f"    insert, ms: {inserts(connection, method, sizes)}"


def nearest(connection: Connection, method: Exact, space_id: int, queries: Vectors) -> list[list[int]]:
    """Return the ordinals nearest to each query."""
    return [method.search(connection, space_id, query, LIMIT)[:NEAREST] for query in queries]


def build(dsn: str, connection: Connection, method: Exact, sizes: Mapping[int, int]) -> tuple[float, float]:
    """Build; returns the seconds, and for how many of them vacuum could not remove rows that had died meanwhile."""
    held, done = [0.0], threading.Event()
    watcher = threading.Thread(target=lambda: held.append(seconds_held(dsn, done)))
    watcher.start()
    began = time.monotonic()
    method.build(connection, sizes)
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    return seconds, held[-1]


def seconds_held(dsn: str, done: threading.Event) -> float:
    """Delete rows of another table, and vacuum it until they can be removed."""
    done.wait(1)
    with connect(dsn) as connection:
        connection.execute("INSERT INTO dead_rows SELECT generate_series(1, 1000)")
        connection.execute("DELETE FROM dead_rows")
        began = time.monotonic()
        while not done.is_set():
            connection.execute("VACUUM dead_rows")
            row = connection.execute("SELECT pg_relation_size('dead_rows') AS size").fetchone()
            if row and not row["size"]:
                break
            done.wait(0.1)
        return time.monotonic() - began


def inserts(connection: Connection, method: Exact, sizes: Mapping[int, int]) -> Cost:
    """Measure inserts of single memories into the largest space, and delete them."""
    space_id, count = max(sizes.items(), key=lambda item: item[1])
    vectors = iter(VectorGenerator(8).vectors(INSERTS).tolist())
    ordinals = iter(range(count, count + INSERTS))

    def insert() -> None:
        ordinal = next(ordinals)
        method.insert(connection, Space(space_id, "", "", next_ordinal=ordinal, live=ordinal), next(vectors))

    connection.execute("SET synchronous_commit = off")
    cost = timed(connection, insert, INSERTS)
    connection.execute("DELETE FROM memory_vectors WHERE space_id = %s AND ordinal >= %s", (space_id, count))
    return cost


def with_indexes(dsn: str, sizes: Mapping[int, int], count: int) -> Cost:
    """Measure inserts into a table with many partial indexes."""
    with connect(dsn) as connection:
        for space_id in range(100, 100 + count):
            connection.execute(
                f"CREATE INDEX ON memory_vectors USING hnsw (embedding halfvec_cosine_ops)"
                f" WHERE space_id = {space_id} AND live"
            )
        return inserts(connection, Exact(), sizes)


def timed(connection: Connection, action: Callable[[], object], times: int) -> Cost:
    """Repeat an action."""
    seconds = []
    cpu = cpu_seconds(connection)
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    cpu = cpu_seconds(connection) - cpu
    p50, p95 = np.quantile(seconds, [0.5, 0.95]) * 1000
    return Cost(float(p50), float(p95), cpu * 1000 / times)


def cpu_seconds(connection: psycopg.Connection[dict[str, object]]) -> float:
    """Return the CPU seconds that this process and the connection's server process have taken."""
    fields = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


if __name__ == "__main__":
    main()
