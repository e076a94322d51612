"""A worker dies of kill -9 in mid-answer while another one is up: when the next token comes, and which are amiss.

Over RabbitMQ nobody but the broker notices the death. The Redis broker notices none, so there we do what the supervisor
of `sangha up` does, and give back what the dead worker held.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.bench import Bench
from bench.client import Broken, Heard, Listener, check, is_delta, text_of
from bench.figures import Figure, at_most
from bench.stack import FORGETFUL, Platform
from models.jobs.workers import bury
from models.journal import journal
from models.platform.database import Connection, Database, one
from models.platform.redis_client import connect
from ops.process import ChildProcess

KILLS = 20

#: A turn's tokens and their rate, and after about how many of them the worker dies: a delta has two, as they gather.
TOKENS, RATE, HEARD, IN_A_DELTA = 150, 50, 30, 2

HOLDER = """
SELECT workers.pid FROM jobs JOIN workers ON workers.name = jobs.worker WHERE jobs.id = %(id)s AND state = 'running'
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """Milliseconds from the kill to the next token, and the tokens lost and repeated in the whole answer."""

    milliseconds: float
    lost: int
    repeated: int


def recovery(bench: Bench) -> Sequence[Figure]:
    """Kill → next token."""
    script = f"tokens={TOKENS},rate={RATE}"
    with bench.stack.platform(engine="scripted", script=script, workers=2) as platform:
        database = Database(platform.settings.postgres_dsn, size=1, name="bench")
        try:
            kills = []
            for number in range(KILLS):
                bench.progress.step(number, KILLS, "kills")
                kills.append(kill(platform, database))
        finally:
            database.close()
    return [
        Figure("kill -9 of the worker → next token", "ms", [kill.milliseconds for kill in kills], at_most(1000)),
        Figure("the longest of them", "ms", [kill.milliseconds for kill in kills], at_most(1000), quantile=1),
        Figure("tokens lost", "", [sum(kill.lost for kill in kills)], at_most(0)),
        Figure("tokens repeated", "", [sum(kill.repeated for kill in kills)], at_most(0)),
    ]


def kill(platform: Platform, database: Database) -> Kill:
    """One turn, one kill, and what is amiss with the answer."""
    seconds, events = killed_in_mid_answer(platform, database)
    return Kill(seconds * 1000, *amiss(text_of(events)))


def killed_in_mid_answer(platform: Platform, database: Database) -> tuple[float, list[Heard]]:
    """Seconds from a kill to the next token, and all of the turn; afterwards the worker is up again."""
    turn = Listener(platform.client(), "hello", **FORGETFUL)
    job_id = turn.wait(lambda event: event.type == "response.created").json()["response"]["job_id"]
    turn.wait(is_delta, HEARD // IN_A_DELTA)
    with database.connection() as connection:
        worker = platform.worker_of(holder(connection, job_id))
    began = time.perf_counter()
    worker.kill()
    told = last_told(platform, job_id)
    if platform.settings.broker_url is None:
        bury(database, socket.gethostname(), worker.pid)
    following = turn.wait(lambda event: is_delta(event) and event.sequence > told)
    events = turn.to_end()
    check(events)
    start_again(worker)
    return following.at - began, events


def holder(connection: Connection, job_id: str) -> int:
    """The pid of the worker that runs the job."""
    row = one(connection, HOLDER, {"id": job_id})
    if row is None:
        raise Broken(f"nobody runs {job_id}")
    return int(row["pid"])


def last_told(platform: Platform, job_id: str) -> int:
    """The last sequence number that the dead worker has journalled: what comes after it is another one's."""
    client = connect(platform.settings.redis_address)
    try:
        return journal.last_sequence(client, job_id)
    finally:
        client.close()


def start_again(worker: ChildProcess) -> None:
    """Have the worker back."""
    worker.clear()
    worker.start()
    worker.wait_ready()


def amiss(text: str) -> tuple[int, int]:
    """How many tokens of the script an answer lacks, and how many it has beside them."""
    said = text.split()
    distinct = set(said) & {f"w{number}" for number in range(TOKENS)}
    return TOKENS - len(distinct), len(said) - len(distinct)
