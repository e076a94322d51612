"""Rules about crashes: only the death or the long silence of a worker counts as one, and only crashes make a job dead.

A lost connection, a restarted broker or an outage of Postgres is no crash of the worker that ran the job.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.chaos.fault import InjectedFault, names_in
from bench.chaos.faults import DEPLOY_WORKERS, POSTGRES_AWAY
from bench.chaos.supervised_processes import WorkerDeath
from bench.chaos.transcripts import Period
from bench.chaos.violations import Violation
from models.jobs.catalogue import CATALOGUE
from models.jobs.leases import LEASE, RENEWAL
from models.platform.database import Connection, fetch_all

#: What keeps workers from renewing their leases, and the seconds between two such faults in which they cannot.
SILENCING, GAP = frozenset({"postgres", "worker-postgres"}), RENEWAL + 2

#: Seconds that a crash may be older than the job's row says: clocks of Postgres and of the injector.
SLACK = 1.0

CRASHED = """
SELECT id, kind, state, failures, crashes, error, right(traceback, 400) AS traceback,
       extract(epoch FROM created_at)::float AS began, extract(epoch FROM coalesce(finished_at, now()))::float AS ended
FROM all_jobs WHERE crashes > 0 OR state = 'dead' ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class CrashRules:
    """The deaths of workers during a run, and the periods in which workers were silent, as seen by Postgres."""

    deaths: Sequence[WorkerDeath]
    silences: Sequence[tuple[float, float]] = ()

    def check(self, connection: Connection) -> Iterator[Violation]:
        """Check all jobs."""
        for row in fetch_all(connection, CRASHED):
            possible = self.possible_crashes(row["began"], row["ended"])
            lived = " to ".join(f"{datetime.fromtimestamp(row[name], UTC):%H:%M:%S}" for name in ("began", "ended"))
            detail = (
                f"{row['failures']} failures, {row['crashes']} of them crashes, from {lived} UTC: "
                f"{row['error']} {row['traceback']}"
            )
            if row["crashes"] > possible:
                yield Violation("crashes", f"{row['kind']} {row['id']}", f"{possible} workers died meanwhile; {detail}")
            if row["state"] == "dead" and min(row["crashes"], possible) < CATALOGUE[row["kind"]].attempts:
                yield Violation("dead", f"{row['kind']} {row['id']}", detail)

    def possible_crashes(self, began: float, ended: float) -> int:
        """Count what may have been a crash of a job that existed from one time to another."""
        deaths = sum(began - SLACK <= death.at <= ended + SLACK for death in self.deaths)
        silences = sum(begin <= ended and end >= began for begin, end in self.silences)
        return deaths + silences


def silent_periods(injected: Sequence[InjectedFault], offset: float) -> Iterator[tuple[float, float]]:
    """Yield the periods in which overlapping or consecutive faults kept workers silent for longer than a lease.

    A single outage of Postgres is not one: it ends with a full lease of grace.

    offset  seconds to add to the faults' times
    """
    faults = sorted(
        (fault.struck_at, fault.healed_at) for fault in injected
        if fault.name != POSTGRES_AWAY and SILENCING & set(names_in(fault.target))
    )  # fmt: skip
    merged: list[tuple[float, float]] = []
    for begin, end in faults:
        if merged and begin - merged[-1][1] < GAP:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    yield from ((begin + offset, end + offset) for begin, end in merged if end - begin > LEASE - GAP)


def forgotten_stops(
    injected: Sequence[InjectedFault], lost_commits: Sequence[Period], offset: float
) -> Iterator[tuple[float, float]]:
    """Yield the periods in which a worker was replaced while a failover lost commits, as that of its last release.

    Postgres then has a worker that runs jobs and is silent, as if it had died.

    offset  seconds to add to the faults' times
    """
    for fault in injected:
        lost = any(period.overlaps(fault.struck_at, fault.healed_at) for period in lost_commits)
        if fault.name == DEPLOY_WORKERS and lost:
            yield fault.struck_at + offset, fault.healed_at + offset
