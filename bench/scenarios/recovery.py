"""A worker is killed in mid-answer while another one runs: when the next token arrives, and which tokens are wrong.

The dead worker's jobs are released by what the supervisor of `sangha up` calls when a worker exits. Without one they
wait until its lease has expired: a redelivered message alone does not prove that a worker is dead.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from bench.figures import Figure, at_most
from bench.harness.client import BackgroundStream, event_type
from bench.harness.processes import restart
from bench.harness.sse import ReceivedEvent, check_stream, is_delta, text_of
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.scenario import Bench
from models.journal import journal
from models.platform.database import Database
from models.platform.redis_client import connect
from ops.dead_worker_releaser import DeadWorkerReleaser

KILLS = 20

#: A turn's tokens and their rate, and after about how many tokens the worker is killed: a delta carries two of them.
TOKENS, RATE, KILL_AFTER, TOKENS_A_DELTA = 150, 50, 30, 2


@dataclass(frozen=True, slots=True)
class KillResult:
    """Milliseconds from the kill to the next token, and the tokens lost and repeated in the whole answer."""

    milliseconds: float
    lost: int
    repeated: int


def recovery(bench: Bench) -> Sequence[Figure]:
    """Measure kill → next token."""
    script = f"tokens={TOKENS},rate={RATE}"
    with bench.stack.platform(engine="scripted", script=script, workers=2) as platform:
        kills = []
        with (
            closing(Database(platform.settings.postgres_dsn, size=1, name="bench")) as database,
            closing(DeadWorkerReleaser(platform.settings, bench.progress.report)) as releaser,
        ):
            for number in range(KILLS):
                bench.progress.step(number, KILLS, "kills")
                kills.append(kill(platform, database, releaser))
    times = [kill.milliseconds for kill in kills]
    return [
        Figure("kill -9 of the worker → next token", "ms", times, at_most(100)),
        Figure("kill -9 of the worker → next token, longest", "ms", times, at_most(100), quantile=1),
        Figure("tokens lost", "", [sum(kill.lost for kill in kills)], at_most(0)),
        Figure("tokens repeated", "", [sum(kill.repeated for kill in kills)], at_most(0)),
    ]


def kill(platform: RunningPlatform, database: Database, releaser: DeadWorkerReleaser) -> KillResult:
    """Run one turn, and kill its worker."""
    seconds, events = kill_in_mid_answer(platform, database, releaser)
    return KillResult(seconds * 1000, *count_errors(text_of(events)))


def kill_in_mid_answer(
    platform: RunningPlatform, database: Database, releaser: DeadWorkerReleaser
) -> tuple[float, list[ReceivedEvent]]:
    """Run a turn, kill its worker and restart it; returns the seconds to the next token, and all events."""
    turn = BackgroundStream(platform.client().stream("hello", **WITHOUT_MEMORY))
    job_id = turn.wait_for(event_type("response.created")).json()["response"]["job_id"]
    turn.wait_for(is_delta, KILL_AFTER // TOKENS_A_DELTA)
    worker = platform.runner(database, job_id)
    began = time.monotonic()
    worker.kill()
    journalled = last_sequence(platform, job_id)
    releaser.release(worker.pid)
    following = turn.wait_for(lambda event: is_delta(event) and event.sequence > journalled)
    events = turn.read_to_end()
    check_stream(events)
    restart(worker)
    return following.at - began, events


def last_sequence(platform: RunningPlatform, job_id: str) -> int:
    """Return the last sequence number that the dead worker journalled: later events are another worker's."""
    with closing(connect(platform.settings.redis_address)) as client:
        return journal.last_sequence(client, job_id)


def count_errors(text: str) -> tuple[int, int]:
    """Count the tokens of the script that an answer lacks, and those that it has in excess."""
    words = text.split()
    distinct = set(words) & {f"w{number}" for number in range(TOKENS)}
    return TOKENS - len(distinct), len(words) - len(distinct)
