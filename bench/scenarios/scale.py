"""A turn, `/metrics` and a pass of the relay beside large tables of jobs, relative to the same with empty ones.

Turns are posted one at a time, so that each finds everything idle. The empty table is measured again before each load,
since a machine's speed varies.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from statistics import median

from bench.figures import Figure, Goal, at_most, parts
from bench.harness.sse import check_stream
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform, Stack
from bench.job_rows import JOB_BYTES, MOVED_BYTES, EndedTurns, JobRows, job_rows
from bench.scenario import Bench
from models.jobs import outbox
from models.jobs.windows import window_sizes
from models.platform.database import Database

TOKENS = 20

#: Turns, requests to /metrics and passes of a measurement at most, and after how many seconds no more are started.
TURNS, REQUESTS, PASSES, ENOUGH_SECONDS = 100, 40, 40, 8.0

#: The parts of a measurement whose medians give the spread of a ratio.
PARTS = 5

#: When scheduled jobs are due: after the measurement.
LATER = timedelta(hours=3)

#: Conversations of one account, and the turns that wait in each.
CONVERSATIONS, WAITING_TURNS = 20, 1_000

#: Accounts with one due job each, in a queue that nobody serves.
DUE = 100_000

#: Ended turns: those of the last two days, which are in `jobs`, and those in `ended_jobs`. Of each at most so many have
#: events, a response and a bill. With --full there are more.
ENDED = EndedTurns(recent=100_000, moved=1_000_000, detailed=100_000)
FULL_ENDED = EndedTurns(recent=1_000_000, moved=10_000_000, detailed=1_000_000)

#: Bytes of disk that copied rows leave free.
FREE_DISK = 10_000_000_000

TURN_GOAL, PASS_GOAL, METRICS_GOAL = at_most(1.2), at_most(1.5), at_most(20)


@dataclass(slots=True)
class Samples:
    """Milliseconds of turns, of requests to /metrics, and of passes of the relay."""

    turns: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """Rows in the table: inserting them returns their description.

    pass_goal  of the relay's pass ÷ that with an empty table; None where the pass has work to do
    """

    fill: Callable[["Tables"], str]
    pass_goal: Goal | None = PASS_GOAL


@dataclass(frozen=True, slots=True)
class Tables:
    """What a load needs: the rows, the stack, and a turn that has ended."""

    rows: JobRows
    stack: Stack
    ended_turn: str


def scale(bench: Bench) -> Sequence[Figure]:
    """Measure each load after the empty table."""
    with (
        bench.stack.platform(engine="scripted", script=f"tokens={TOKENS},rate=0") as platform,
        closing(Database(platform.settings.postgres_dsn, size=1, name="bench")) as database,
        job_rows(platform.settings.postgres_dsn, lambda number: bench.progress.report(f"{number:,} rows")) as rows,
    ):
        meter = Meter(bench, platform, database)
        return [figure for load in loads(bench.full) for figure in meter.figures(rows, load)]


def loads(full: bool) -> Sequence[Load]:
    """Return the loads, smaller ones first."""
    sizes = [(1_000, 1_000), (10_000, 10_000), (100_000, 100_000), *([(1_000_000, 100_000)] if full else [])]
    return [
        *(Load(scheduled(count, accounts)) for count, accounts in sizes),
        Load(blocked),
        Load(due, pass_goal=None),
        Load(ended(FULL_ENDED if full else ENDED)),
    ]


def scheduled(count: int, accounts: int) -> Callable[[Tables], str]:
    """Return a load of meditations that are due later."""

    def fill(tables: Tables) -> str:
        tables.rows.spread("meditation.run", count, accounts, LATER)
        return f"{count:,} scheduled of {accounts:,} accounts"

    return fill


def blocked(tables: Tables) -> str:
    """Insert turns that wait for an unfinished one of their conversation."""
    tables.rows.block("turn.run", CONVERSATIONS, WAITING_TURNS)
    return f"{CONVERSATIONS} conversations of one account with {WAITING_TURNS:,} waiting turns each"


def due(tables: Tables) -> str:
    """Insert jobs that the relay has to publish, while the turns are posted."""
    tables.rows.spread("data.erase", DUE, DUE)
    return f"{DUE:,} due of as many accounts in another queue"


def ended(turns: EndedTurns) -> Callable[[Tables], str]:
    """Return a load of ended turns, with their events and responses as far as they fit on the disk."""

    def fill(tables: Tables) -> str:
        rows = turns.recent * JOB_BYTES + turns.moved * MOVED_BYTES
        free = shutil.disk_usage(tables.stack.folder).free - FREE_DISK - rows
        fitting = free // (2 * tables.rows.detail_bytes(tables.ended_turn))
        complete = replace(turns, detailed=max(0, min(turns.detailed, fitting)))
        tables.rows.end(tables.ended_turn, complete)
        counts = f"{turns.moved:,} ended and {turns.recent:,} of the last days"
        return f"{counts}, {complete.detailed:,} of each with events and responses"

    return fill


class Meter:
    """Measures turns, `/metrics` and passes of one platform."""

    def __init__(self, bench: Bench, platform: RunningPlatform, database: Database) -> None:
        self._bench = bench
        self._platform = platform
        self._client = platform.client()
        self._database = database

    def figures(self, rows: JobRows, load: Load) -> Iterator[Figure]:
        """Measure with an empty table, fill it, measure again, and clear it."""
        tables = Tables(rows, self._bench.stack, self._end_turn())
        empty = self.measure("an empty table")
        name = load.fill(tables)
        rows.analyse()
        self._client.close()  # meanwhile the server may have closed it; the next request connects again
        filled = self.measure(name)
        self._bench.stack.servers.purge_queues(self._bench.stack.broker)
        rows.clear()
        yield Figure(f"{name}: turn ÷ empty table's, p50", "x", ratios(filled.turns, empty.turns), TURN_GOAL)
        yield Figure(f"{name}: turn, p50", "ms", filled.turns)
        yield Figure(f"{name}: /metrics", "ms", filled.metrics, METRICS_GOAL)
        if load.pass_goal:
            passes = ratios(filled.passes, empty.passes)
            yield Figure(f"{name}: relay pass ÷ empty table's", "x", passes, load.pass_goal)

    def measure(self, name: str) -> Samples:
        """Measure turns, requests to /metrics and passes."""
        self._turn()
        samples = Samples()
        for times, count, act, unit in (
            (samples.turns, TURNS, self._turn, "turns"),
            (samples.metrics, REQUESTS, self._read_metrics, "requests to /metrics"),
            (samples.passes, PASSES, self._pass_relay, "passes of the relay"),
        ):
            enough = time.monotonic() + ENOUGH_SECONDS
            while len(times) < count and time.monotonic() < enough:
                self._bench.progress.step(len(times), count, f"{name}: {unit}")
                times.append(act())
        return samples

    def _turn(self) -> float:
        """Run a turn; returns the milliseconds from its POST to its last event."""
        began = time.monotonic()
        events = list(self._client.stream("hello", **WITHOUT_MEMORY))
        check_stream(events, TOKENS)
        return (events[-1].at - began) * 1000

    def _read_metrics(self) -> float:
        """Request /metrics; returns the milliseconds until it was read."""
        began = time.monotonic()
        self._client.request("GET", "/metrics").read()
        return (time.monotonic() - began) * 1000

    def _pass_relay(self) -> float:
        """Select the due jobs of all shards as the sweeper does, without publishing; returns the milliseconds."""
        with self._database.connection() as connection, connection.transaction(force_rollback=True):
            windows = window_sizes(connection)
            began = time.monotonic()
            for shard in range(outbox.SHARDS):
                outbox.lock_due_jobs_of_shard(connection, windows, shard, {})
            return (time.monotonic() - began) * 1000

    def _end_turn(self) -> str:
        """Run a turn; returns the id of its job."""
        *_, last = self._client.stream("hello", **WITHOUT_MEMORY)
        return str(last.json()["response"]["job_id"])


def ratios(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the medians of consecutive parts of the samples, divided by the median of the base."""
    return [median(part) / median(base) for part in parts(samples, PARTS)]
