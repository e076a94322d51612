"""A small platform on which a small fleet has worked in peace, and what is left of both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from bench.chaos.clients import Canceller, OpenAIClient, Poller, Streamer, Talker
from bench.chaos.fleet import Fleet
from bench.chaos.rememberers import Embedder, Importer, Thinker
from bench.chaos.transcripts import Transcript
from bench.stack import BESIDE, standing
from models.database import Database
from models.settings import Settings
from tests.waiting import eventually

CREW = ((Streamer, OpenAIClient, Poller, Canceller, Talker), (Importer, Thinker, Embedder, Streamer))

#: Ended turns after which the fleet is called home, beside those that warm it up.
ENOUGH = 24 + 16


@dataclass(frozen=True, slots=True)
class Finished:
    """What a fleet heard, and the servers that hold the rest; the platform's processes are gone."""

    transcripts: Sequence[Transcript]
    settings: Settings
    database: Database

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
            fleet = Fleet([platform.address], seed=4, tokens=12, crew=CREW)
            fleet.start()
            eventually(lambda: fleet.counts()["ended"] >= ENOUGH, timeout=60)
            transcripts = fleet.finish(60)
            database = Database(platform.settings.postgres_dsn, size=2)
            eventually(lambda: nothing_moves(database), timeout=30)
        yield Finished(transcripts, platform.settings, database)
        database.close()


def nothing_moves(database: Database) -> bool:
    """Whether the last follow-ups of the last turns have ended."""
    with database.connection() as connection:
        moving = "SELECT FROM jobs WHERE state IN ('queued', 'running', 'waiting') AND account_id <> 'platform'"
        return connection.execute(moving).fetchone() is None
