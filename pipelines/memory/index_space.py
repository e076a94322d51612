"""`memory.index`: a large space gets an index of its own, and one that has shrunk loses it.

Building runs in one statement of Postgres, next to reads and writes. What is cut off is begun again by the next
attempt; what Postgres finished after its client had died is found standing.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import spaces, vector_indexes
from models.memory.vector_indexes import FEWEST, MOST
from models.platform.database import Connection

#: Seconds between two looks at whether to stop.
INTERVAL = 0.5


def run(attempt: Attempt, *, most: int = MOST, fewest: int = FEWEST) -> Ending:
    """Make the space's index, or drop it, as its size asks for. Raises the reason to stop."""
    space_id = attempt.job.arguments["space_id"]
    with attempt.database.connection() as connection:
        space = spaces.read(connection, space_id)
        if space is None or (space.indexed_at is not None and space.live < fewest):
            spaces.set_indexed(connection, space_id, stands=False)  # first: no search may rely on it
            vector_indexes.drop(connection, space_id)
        elif space.live > most:
            with _stopping(attempt, connection):
                vector_indexes.build(connection, space_id)
        stands = vector_indexes.is_valid(connection, space_id)
        if space is not None and stands != (space.indexed_at is not None):
            spaces.set_indexed(connection, space_id, stands=stands)
    attempt.check()
    return plain_ending(attempt, "completed", result={"indexed": stands})


@contextmanager
def _stopping(attempt: Attempt, connection: Connection) -> Iterator[None]:
    """Tell Postgres to give up once the attempt is to stop."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            if attempt.should_stop():
                connection.cancel()
                return

    watcher = threading.Thread(target=watch, name="index-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
