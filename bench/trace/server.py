"""Postgres's time for a turn, from its log: planning and running, statement by statement.

Postgres logs each step of a prepared statement separately: `parse`, `bind` (which plans) and `execute`.
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

#: A line of the log, and those that continue its statement.
LINE = re.compile(r"duration: ([\d.]+) ms  (parse|bind|execute)(?: [^:\n]*)?: (.*(?:\n\t.*)*)")

#: Seconds in which Postgres reloads its settings, and writes pending log lines.
RELOAD_SECONDS = 0.5


@contextmanager
def log_statements(dsn: str) -> Iterator[None]:
    """Have Postgres log each statement's duration until the end of the block."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        connection.execute("SELECT pg_reload_conf()")
        time.sleep(RELOAD_SECONDS)
        yield
        time.sleep(RELOAD_SECONDS)
        connection.execute("ALTER SYSTEM RESET log_min_duration_statement")
        connection.execute("SELECT pg_reload_conf()")


def statements(log: str, turns: int) -> list[tuple[str, ...]]:
    """Return one row for each statement that at least every other turn runs, the most expensive first."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names = {with_numbers(statement): name for statement, name in constants().items()}
    for milliseconds, phase, statement in LINE.findall(log):
        text = " ".join(statement.split())
        times[names.get(text, text[:40])]["execute" if phase == "execute" else "plan"].append(float(milliseconds))
    rows = [(name, steps["plan"], steps["execute"]) for name, steps in times.items()]
    rows.sort(key=lambda row: -(median(row[1]) + median(row[2])) * len(row[2]))
    return [
        (name, number(len(ran) / turns), number(median(planned)), number(median(ran)))
        for name, planned, ran in rows
        if len(ran) > turns / 2
    ]


def median(times: list[float]) -> float:
    """Return the median, or 0 of an empty list."""
    return statistics.median(times) if times else 0.0


def with_numbers(statement: str) -> str:
    """Return one of our statements as Postgres logs it: `%(name)s` as `$1`, the same name with the same number."""
    names: dict[str, str] = {}
    text = re.sub(r"%\((\w+)\)s", lambda match: names.setdefault(match[1], f"${len(names) + 1}"), statement)
    return " ".join(text.split())


def read_from(file: Path, begin: int) -> str:
    """Read a log from a position on."""
    with file.open() as log:
        log.seek(begin)
        return log.read()
