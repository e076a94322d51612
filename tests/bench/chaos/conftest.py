"""Run a small fleet without faults on a small platform, once for the tests of the checker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from bench.chaos.clients import Canceller, ConversationClient, OpenAIClient, Poller, Streamer
from bench.chaos.file_clients import FileClient
from bench.chaos.fleet import Fleet
from bench.chaos.leaks import Baseline
from bench.chaos.memory_clients import EmbeddingClient, Importer, Meditator
from bench.chaos.report_clients import ReportClient
from bench.chaos.slots import check_slots
from bench.chaos.transcripts import ClientTranscript
from bench.chaos.violations import Violation
from bench.harness.stack import LIGHT_POOLS, running_stack
from bench.harness.waiting import wait_until
from models.jobs import workers
from models.platform.database import Database
from models.platform.settings import Settings

CLIENTS = (
    (Streamer, OpenAIClient, Poller, Canceller, ConversationClient, ReportClient),
    (Importer, Meditator, EmbeddingClient, Streamer),
    (FileClient,),
)

#: Ended turns after which the fleet is stopped, and those of its warm-up.
ENOUGH = 24 + 16


@dataclass(frozen=True, slots=True)
class FinishedFleet:
    """The transcripts of a fleet, and the servers; the platform's processes have ended.

    leaks         the leaks that were found in the processes at the end
    missing_slot  the result of the slot check with one slot more than the engine has
    """

    transcripts: Sequence[ClientTranscript]
    settings: Settings
    database: Database
    leaks: Sequence[Violation]
    missing_slot: Sequence[Violation]

    @property
    def accounts(self) -> Sequence[str]:
        """The accounts of the fleet."""
        return sorted({transcript.account for transcript in self.transcripts})


@pytest.fixture(scope="session")
def finished() -> Iterator[FinishedFleet]:
    """A fleet that has worked and finished."""
    # Half a second for each turn, so that turns that can run at once do so also on a busy machine.
    changes = {"engine": "scripted", "script": "tokens=12,rate=24", "visits_per_minute": 100_000}
    with running_stack("redis") as stack:
        with stack.platform(light_pools=LIGHT_POOLS, **changes) as platform:
            pids = {name: child.pid for name, child in platform.children.items()}
            fleet = Fleet([platform.address], seed=4, tokens=12, clients=CLIENTS)
            fleet.start()
            fleet.begin_files()
            fleet.begin_reports()
            baseline = Baseline.take(pids, platform.settings)
            wait_until(lambda: fleet.counts()["ended"] >= ENOUGH, timeout=90)
            transcripts = fleet.finish(60)
            database = Database(platform.settings.postgres_dsn, size=2)
            wait_until(lambda: is_idle(database), timeout=30)
            leaks = [*baseline.check(pids, platform.settings, {"web": platform.address})]
            leaks += check_slots(pids, [platform.address], platform.settings)
            more_pids = {**pids, "missing-worker": register_missing_worker(database)}
            missing_slot = list(check_slots(more_pids, [platform.address], platform.settings))
        yield FinishedFleet(transcripts, platform.settings, database, leaks, missing_slot)
        database.close()


def register_missing_worker(database: Database) -> int:
    """Register a worker with a slot but without a process; returns its pid."""
    with database.connection() as connection:
        workers.register(connection, "missing-worker", host="", pid=-1, pools=["inference"], threads={"inference": 1})
    return -1


def is_idle(database: Database) -> bool:
    """Return whether all jobs of accounts have ended."""
    with database.connection() as connection:
        unfinished = (
            "SELECT FROM jobs WHERE state IN ('scheduled', 'queued', 'running', 'waiting') AND account_id <> 'platform'"
        )
        return connection.execute(unfinished).fetchone() is None
