"""Count recalled memories in a background thread.

Counts are collected in the process and written every few seconds. Those of a process that dies are lost, which is
acceptable: they only weigh importance.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable

from models.memory import recall_queries
from models.platform.database import Database
from models.platform.errors import Unavailable

log = logging.getLogger(__name__)

#: Seconds between two writes.
FLUSH_INTERVAL = 2.0

#: The first hits of a search that count as used.
COUNTED_HITS = 10


class RecallCounter:
    """Counts how often memories are recalled, and writes the counts from a thread of its own."""

    def __init__(self, database: Database, interval: float = FLUSH_INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pending = threading.Event()
        threading.Thread(target=self._run, name="recall-counter", daemon=True).start()

    def add(self, ids: Iterable[str]) -> None:
        """Count one recall of each of these memories."""
        with self._lock:
            self._counts.update(ids)
        self._pending.set()

    def flush(self) -> None:
        """Write the counts collected so far; drop them if the database is unavailable."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            with self._database.connection() as connection:
                recall_queries.count_recalls(connection, counts)
        except Unavailable as error:
            log.warning("recall counts of %d memories were dropped: %s", len(counts), error)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._pending.wait()
            pause.wait(self._interval)
            self._pending.clear()
            try:
                self.flush()
            except Exception:
                log.exception("recall counts could not be written")
