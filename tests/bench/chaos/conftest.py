"""A small platform on which a small fleet has worked in peace, and what is left of both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from bench.chaos.rememberers import Embedder, Importer, Thinker
from bench.stack import BESIDE, standing

from bench.chaos.clients import Canceller, OpenAIClient, Poller, Streamer, Talker
from bench.chaos.fleet import Fleet
from bench.chaos.leaks import Baseline
from bench.chaos.slots import lost
from bench.chaos.transcripts import Transcript
from bench.chaos.violations import Violation
from bench.harness.waiting import wait_until
from models.jobs import workers
from models.platform.database import Database
from models.platform.settings import Settings

CREW = ((Streamer, OpenAIClient, Poller, Canceller, Talker), (Importer, Thinker, Embedder, Streamer))

#: Ended turns after which the fleet is called home, beside those that warm it up.
ENOUGH = 24 + 16


@dataclass(frozen=True, slots=True)
class Finished:
    """What a fleet heard, and the servers that hold the rest; the platform's processes are gone.

    leaks         what they held too much of in the end
    without_slot  the same, where one slot more is promised than there is
    """

    transcripts: Sequence[Transcript]
    settings: Settings
    database: Database
    leaks: Sequence[Violation]
    without_slot: Sequence[Violation]

    @property
    def accounts(self) -> Sequence[str]:
        """Whose fleet it was."""
        return sorted({transcript.account for transcript in self.transcripts})


@pytest.fixture(scope="session")
def finished() -> Iterator[Finished]:
    """A fleet that has worked and come home."""
    changes = {"engine": "scripted", "script": "tokens=12,rate=60", "visits_per_minute": 100_000}
    with standing("redis") as stack:
        with stack.platform(beside=BESIDE, **changes) as platform:
            pids = {name: child.pid for name, child in platform.children.items()}
            fleet = Fleet([platform.address], seed=4, tokens=12, crew=CREW)
            fleet.start()
            baseline = Baseline.take(pids, platform.settings)
            wait_until(lambda: fleet.counts()["ended"] >= ENOUGH, timeout=90)
            transcripts = fleet.finish(60)
            database = Database(platform.settings.postgres_dsn, size=2)
            wait_until(lambda: nothing_moves(database), timeout=30)
            leaks = baseline.violations(pids, platform.settings)
            without_slot = list(lost({**pids, "ghost": ghost(database)}, [platform.address], platform.settings))
        yield Finished(transcripts, platform.settings, database, leaks, without_slot)
        database.close()


def ghost(database: Database) -> int:
    """The pid of a worker that is on the list, and has a slot that nobody serves."""
    with database.connection() as connection:
        workers.register(connection, "ghost", host="", pid=-1, pools=["inference"], queues=["inference"], threads=1)
    return -1


def nothing_moves(database: Database) -> bool:
    """Whether the last follow-ups of the last turns have ended."""
    with database.connection() as connection:
        moving = "SELECT FROM jobs WHERE state IN ('queued', 'running', 'waiting') AND account_id <> 'platform'"
        return connection.execute(moving).fetchone() is None
