"""What a turn costs inside Postgres, by its own log: planning and running, statement by statement.

Postgres logs the steps of a prepared statement each by itself: `parse`, `bind` (which plans) and `execute`.
"""

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.table import number
from bench.trace.names import constants

HEADINGS = ("statement", "a turn", "ms to plan", "ms to run")

#: A line of the log, and those that go on with its statement.
LINE = re.compile(r"duration: ([\d.]+) ms  (parse|bind|execute)(?: [^:\n]*)?: (.*(?:\n\t.*)*)")

#: Seconds in which Postgres reads its settings again, and writes what it still has to log.
SETTLING = 0.5


@contextmanager
def logging(dsn: str) -> Iterator[None]:
    """Have Postgres log each statement's time."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        connection.execute("SELECT pg_reload_conf()")
        time.sleep(SETTLING)
        yield
        time.sleep(SETTLING)
        connection.execute("ALTER SYSTEM RESET log_min_duration_statement")
        connection.execute("SELECT pg_reload_conf()")


def statements(log: str, turns: int) -> list[tuple[str, ...]]:
    """A row a statement, the costliest first, of what is said in every other turn at least."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    named = {numbered(statement): name for statement, name in constants().items()}
    for milliseconds, what, statement in LINE.findall(log):
        text = " ".join(statement.split())
        times[named.get(text, text[:40])]["execute" if what == "execute" else "plan"].append(float(milliseconds))
    rows = [(name, steps["plan"], steps["execute"]) for name, steps in times.items()]
    rows.sort(key=lambda row: -(middle(row[1]) + middle(row[2])) * len(row[2]))
    return [
        (name, number(len(ran) / turns), number(middle(planned)), number(middle(ran)))
        for name, planned, ran in rows
        if len(ran) > turns / 2
    ]


def middle(times: list[float]) -> float:
    """The median; 0 of none."""
    return statistics.median(times) if times else 0.0


def numbered(statement: str) -> str:
    """A statement of ours as the server knows it: `%(name)s` as `$1`, the same name by the same number."""
    names: dict[str, str] = {}
    found = re.sub(r"%\((\w+)\)s", lambda match: names.setdefault(match[1], f"${len(names) + 1}"), statement)
    return " ".join(found.split())


def since(file: Path, begin: int) -> str:
    """What a log has had to say from a place on."""
    with file.open() as log:
        log.seek(begin)
        return log.read()
