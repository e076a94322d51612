"""What recall used is counted, off the path of whoever waits for an answer.

Counts gather in the process and are written every few seconds. Those of a process that dies are lost: they say what
seems to matter, and a few more or fewer change nothing.
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

#: The first hits of an answer count as used: the others were only looked at.
COUNTED_HITS = 10


class RecallCounter:
    """Counts uses of memories, in a thread of its own."""

    def __init__(self, database: Database, interval: float = FLUSH_INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        threading.Thread(target=self._run, name="noting", daemon=True).start()

    def add(self, ids: Iterable[str]) -> None:
        """These were of use."""
        with self._lock:
            self._counts.update(ids)
        self._wanted.set()

    def flush(self) -> None:
        """Write what has gathered."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            with self._database.connection() as connection:
                recall_queries.count_recalls(connection, counts)
        except Unavailable as error:
            log.warning("uses of %d memories go uncounted: %s", len(counts), error)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._wanted.wait()
            pause.wait(self._interval)
            self._wanted.clear()
            try:
                self.flush()
            except Exception:
                log.exception("uses of memories can't be counted")
