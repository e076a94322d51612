"""What serves turns now: the known models and the state of their queues, read once a second for all requests.

The web processes and the scheduler each have a ServingCache. A request never waits for it once it was read: while it
is used, a thread renews it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields

from models.jobs.windows import RECENT
from models.platform.database import Connection, Database, fetch_all
from models.platform.errors import Unavailable
from models.serving.queues import DEFAULT_QUEUE
from models.serving.served_models import ModelDescription, ServedModel, ServedModels, read_models

log = logging.getLogger(__name__)

#: Seconds after which a state is renewed by its next use, in a thread; and those after which its next use waits for it.
MAX_AGE, TOO_OLD = 1.0, 5.0

#: Waiting jobs of a queue that are counted; there may be a million.
MAX_COUNTED = 10_000

#: Waiting lanes of a queue that are counted.
MAX_LANES = 128


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of a queue.

    threads       of its live workers
    waiting       due jobs without a worker, at most MAX_COUNTED
    running       jobs that its workers run
    mean_seconds  of an attempt, as its workers have measured lately; None: not yet
    published     those of the waiting jobs that are published
    lanes         lanes with unpublished jobs, at most MAX_LANES
    """

    threads: int = 0
    waiting: int = 0
    running: int = 0
    mean_seconds: float | None = None
    published: int = 0
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class ServingState:
    """The known models, and their queues, also those of background work, by name."""

    models: ServedModels
    queues: Mapping[str, QueueState] = field(default_factory=dict)

    def queue(self, name: str) -> QueueState:
        """Return the state of a queue; an empty one if it has neither workers nor jobs."""
        return self.queues.get(name, QueueState())


# The queues of registered workers and known models, with their workers' threads and rates.
#
# The lanes with waiting jobs are visited with one index probe each, as the outbox does (`models.jobs.outbox`).
QUEUES = """
WITH RECURSIVE serving AS (
    SELECT queue, coalesce((queue_threads ->> queue)::int, threads) AS threads,
           (mean_seconds ->> queue)::float AS mean_seconds
    FROM workers CROSS JOIN LATERAL unnest(queues) AS queue
    WHERE pid > 0 AND seen_at > now() - make_interval(secs => %(recent)s)
), known AS (
    SELECT DISTINCT queue FROM (
        SELECT queue FROM serving
        UNION ALL SELECT model_queue || twin FROM served_models CROSS JOIN unnest(ARRAY['', '_batch']) AS twin
        UNION ALL SELECT unnest(ARRAY['inference', 'inference_batch'])) AS names (queue)
    WHERE queue LIKE 'inference%%' OR queue LIKE 'upstream.%%'
), waiting_lanes AS (
    SELECT known.queue, shard, first.lane, 1 AS visited FROM known CROSS JOIN generate_series(0, 3) AS shard
    CROSS JOIN LATERAL (
        SELECT coalesce(lane, account_id) AS lane FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = shard AND jobs.queue = known.queue
        ORDER BY coalesce(lane, account_id) LIMIT 1) AS first
    UNION ALL
    SELECT waiting_lanes.queue, shard, next.lane, visited + 1 FROM waiting_lanes CROSS JOIN LATERAL (
        SELECT coalesce(lane, account_id) AS lane FROM jobs
        WHERE state || '' = 'queued' AND published_at IS NULL AND NOT blocked
          AND ascii(right(coalesce(lane, account_id), 1)) %% 4 = shard AND jobs.queue = waiting_lanes.queue
          AND coalesce(lane, account_id) > waiting_lanes.lane
        ORDER BY coalesce(lane, account_id) LIMIT 1) AS next
    WHERE visited < %(most_lanes)s / 4
)
SELECT queue,
       (SELECT coalesce(sum(threads), 0)::int FROM serving WHERE serving.queue = known.queue) AS threads,
       (SELECT avg(mean_seconds) FROM serving WHERE serving.queue = known.queue AND threads > 0) AS mean_seconds,
       (SELECT count(*)::int FROM (
           SELECT FROM jobs WHERE jobs.queue = known.queue AND state = 'queued' LIMIT %(most)s) AS jobs) AS waiting,
       (SELECT count(*)::int FROM (
           SELECT FROM jobs WHERE jobs.queue = known.queue AND state = 'running' LIMIT %(most)s) AS jobs) AS running,
       (SELECT count(*)::int FROM (
           SELECT FROM jobs WHERE jobs.queue = known.queue AND state = 'queued' AND published_at IS NOT NULL
           LIMIT %(most)s) AS jobs) AS published,
       (SELECT count(*)::int FROM waiting_lanes WHERE waiting_lanes.queue = known.queue) AS lanes
FROM known
"""


#: The columns of QUEUES that a QueueState has.
COUNTED = tuple(field.name for field in fields(QueueState))


def read_state(connection: Connection, fallback: ModelDescription, *, explicit: bool = False) -> ServingState:
    """Read the state; for the parameters see `read_models`."""
    models = read_models(connection, fallback, explicit=explicit)
    parameters = {"recent": RECENT, "most": MAX_COUNTED, "most_lanes": MAX_LANES}
    rows = fetch_all(connection, QUEUES, parameters)
    queues = {row["queue"]: QueueState(**{name: row[name] for name in COUNTED}) for row in rows}
    return ServingState(models, queues)


class ServingCache:
    """The serving state of a process, at most MAX_AGE old while it is used."""

    def __init__(
        self,
        database: Database,
        fallback: Callable[[], ModelDescription],
        *,
        explicit: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty cache. `fallback` may read the model's file, once; see `read_models`."""
        self._database = database
        self._fallback = fallback
        self._explicit = explicit
        self._clock = clock
        self._lock = threading.Lock()
        self._state: ServingState | None = None
        self._read_at = 0.0
        self._renewing = False

    def is_ready(self) -> bool:
        """Return whether `state` does not block."""
        return self._state is not None and self._clock() - self._read_at < TOO_OLD

    def state(self) -> ServingState:
        """Return the state. Blocks for the first one, and after TOO_OLD without a use."""
        state, age = self._state, self._clock() - self._read_at
        if state is None or age >= TOO_OLD:
            return self.renew()
        if age >= MAX_AGE:
            self._renew_in_thread()
        return state

    def latest(self) -> ServingState:
        """Return the state that was read last, however old it is. Blocks only for the first one."""
        return self._state or self.renew()

    def renew(self) -> ServingState:
        """Read the state now, as for a name that it lacks; the earlier one while the database is unavailable."""
        try:
            with self._database.connection() as connection:
                state = read_state(connection, self._fallback(), explicit=self._explicit)
        except Unavailable:  # what was known, so that requests do not all wait until the database answers
            state = self._state or self._unregistered()
        self._state, self._read_at = state, self._clock()
        return state

    def _unregistered(self) -> ServingState:
        """Return what the settings know: the default model, in the queue that it always has."""
        fallback = self._fallback()
        model = ServedModel(fallback.name, fallback, DEFAULT_QUEUE)
        return ServingState(ServedModels([model], model))

    def _renew_in_thread(self) -> None:
        """Read the state in a thread, unless one does."""
        with self._lock:
            if self._renewing:
                return
            self._renewing = True
        threading.Thread(target=self._renew_once, name="serving-state", daemon=True).start()

    def _renew_once(self) -> None:
        try:
            with suppress(Unavailable):
                self.renew()
        except Exception:
            log.exception("Cannot read the state of models and queues; using the earlier one")
        finally:
            self._renewing = False
