"""`memory.index`: build a vector index for a large space, and drop the index of one that has shrunk.

Postgres builds the index in one statement, concurrently with reads and writes. The next attempt rebuilds an index whose
build was cut off, and keeps one that Postgres completed after its client had died.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import QueryCanceled

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import spaces, vector_indexes
from models.memory.vector_indexes import BUILD_ABOVE, DROP_BELOW
from models.platform.database import Connection

#: Seconds between two checks of whether to stop.
CHECK_INTERVAL = 0.5


def run(attempt: Attempt, *, most: int = BUILD_ABOVE, fewest: int = DROP_BELOW) -> Ending:
    """Build the index of a space with more than `most` live memories, drop that of one with fewer than `fewest`.

    Raises the reason to stop.
    """
    space_id = attempt.job.arguments["space_id"]
    with attempt.database.connection() as connection:
        space = spaces.read(connection, space_id)
        if space is None or (space.indexed_at is not None and space.live < fewest):
            # Before the drop: searches that follow must not rely on the index.
            spaces.set_indexed(connection, space_id, indexed=False)
            vector_indexes.drop(connection, space_id)
        elif space.live > most:
            with _cancel_on_stop(attempt, connection):
                vector_indexes.build(connection, space_id)
        indexed = vector_indexes.is_valid(connection, space_id)
        if space is not None and indexed != (space.indexed_at is not None):
            spaces.set_indexed(connection, space_id, indexed=indexed)
    attempt.check()
    return plain_ending(attempt, "completed", result={"indexed": indexed})


@contextmanager
def _cancel_on_stop(attempt: Attempt, connection: Connection) -> Iterator[None]:
    """Cancel the running statement once the attempt should stop. Raises the reason to stop."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(CHECK_INTERVAL):
            if attempt.should_stop():
                connection.cancel()
                return

    watcher = threading.Thread(target=watch, name="index-watch", daemon=True)
    watcher.start()
    try:
        yield
    except QueryCanceled:
        attempt.check()  # raises the reason to stop, if that is why
        raise
    finally:
        done.set()
        watcher.join()
