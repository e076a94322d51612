"""What `sangha top` shows: read from Postgres and Redis, and for streams from the metrics of web processes."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import redis

from models.jobs import counts
from models.jobs.catalogue import BATCH_SUFFIX
from models.jobs.pool_states import PoolState, list_pool_states
from models.jobs.workers import list_live
from models.platform.database import Connection, fetch_all
from models.platform.settings import Settings
from models.serving.breakers import Breaker
from models.serving.forecast import predicted_wait
from models.serving.served_models import ModelDescription, ServedModel
from models.serving.state import QueueState, ServingState, read_state
from models.serving.stranded import UnservedQueue, list_unserved
from ops.breakers import known_breakers
from ops.database_connection import transaction
from ops.top.stream_counts import StreamCounts, count_streams
from ops.top.token_rates import TokenRates
from pipelines.inference.registry import default_model


@dataclass(frozen=True, slots=True)
class EngineRow:
    """The models that share a queue: one of local engines, or those of an endpoint.

    name               the model, or the endpoint and its number of models
    wait               predicted seconds until a turn that is sent now begins; None: unknown
    tokens_per_second  generated since the last look; None: Redis could not be read
    """

    name: str
    queue: str
    slots: int
    running: int
    queued: int
    wait: float | None
    tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue with due jobs. `oldest` are the seconds for which the first has waited for a worker."""

    queue: str
    queued: int
    running: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an installation at a time. Queues: the one whose oldest job has waited longest first."""

    time: datetime
    workers: int
    engines: Sequence[EngineRow]
    pools: Sequence[PoolState]
    queues: Sequence[QueueRow]
    breakers: Sequence[Breaker]
    unserved: Sequence[UnservedQueue]
    streams: StreamCounts | None

    @property
    def tokens_per_second(self) -> float | None:
        """The tokens of all engines; None: unknown."""
        rates = [row.tokens_per_second for row in self.engines]
        return sum(rate for rate in rates if rate is not None) if None not in rates else None

    @property
    def dead(self) -> int:
        """The number of dead jobs."""
        return sum(pool.dead for pool in self.pools if pool.queue is None)


class SnapshotReader:
    """Reads snapshots; rates are those since the previous one, or since this reader was created."""

    def __init__(self, settings: Settings, client: redis.Redis, metrics_urls: Sequence[str] = ()) -> None:
        self._settings = settings
        self._client = client
        self._metrics_urls = metrics_urls
        self._fallback = ModelDescription(default_model(settings))
        self._rates: TokenRates | None = None
        with suppress(redis.RedisError, OSError):
            self._rates = TokenRates(client)

    def read(self) -> Snapshot:
        """Read the present state. Raises Unavailable while Postgres cannot be reached."""
        rates = self._token_rates()
        with transaction(self._settings) as connection:
            connection.read_only = True
            state = read_state(connection, self._fallback)
            by_queue = rates if rates is None else _by_queue(connection, rates)
            return Snapshot(
                time=datetime.now(UTC),
                workers=len(list_live(connection)),
                engines=engine_rows(state, by_queue),
                pools=list_pool_states(connection),
                queues=_queue_rows(connection),
                breakers=list(known_breakers(connection, self._settings).values()),
                unserved=list(list_unserved(connection).values()),
                streams=count_streams(self._settings, self._metrics_urls),
            )

    def _token_rates(self) -> Mapping[str, float] | None:
        """Return tokens per second by job; None while Redis cannot be read."""
        try:
            self._rates = self._rates or TokenRates(self._client)
            return self._rates.look()
        except (redis.RedisError, OSError):
            self._rates = None
            return None


def read_once(settings: Settings, client: redis.Redis, metrics_urls: Sequence[str], seconds: float) -> Snapshot:
    """Return one snapshot, whose rates are those of some seconds."""
    reader = SnapshotReader(settings, client, metrics_urls)
    time.sleep(seconds)
    return reader.read()


def engine_rows(state: ServingState, rates: Mapping[str, float] | None) -> list[EngineRow]:
    """Return a row for each queue of models, of its interactive and its batch work together.

    rates  tokens per second by queue, without the suffix of batch queues; None: unknown
    """
    by_queue = defaultdict[str, list[ServedModel]](list)
    for model in state.models:
        by_queue[model.queue].append(model)
    return [_engine_row(models, state, rates) for models in by_queue.values()]


def _engine_row(models: Sequence[ServedModel], state: ServingState, rates: Mapping[str, float] | None) -> EngineRow:
    queue = models[0].queue
    both = state.queue(queue), state.queue(f"{queue}{BATCH_SUFFIX}")
    endpoint = models[0].description.endpoint
    return EngineRow(
        name=models[0].id if len(models) == 1 else f"{endpoint} ({len(models)} models)",
        queue=queue,
        slots=max(model.slots for model in models),
        running=sum(each.running for each in both),
        queued=sum(each.waiting for each in both),
        wait=_wait(both[0]),
        tokens_per_second=None if rates is None else rates.get(queue, 0.0),
    )


def _wait(queue: QueueState) -> float | None:
    return predicted_wait(queue) if queue.threads else None


QUEUES_OF_JOBS = "SELECT id, queue FROM jobs WHERE id = ANY(%(job_ids)s)"


def _by_queue(connection: Connection, rates: Mapping[str, float]) -> Mapping[str, float]:
    """Return tokens per second by queue, without the suffix of batch queues."""
    by_queue = Counter[str]()
    for row in fetch_all(connection, QUEUES_OF_JOBS, {"job_ids": list(rates)}):
        by_queue[row["queue"].removesuffix(BATCH_SUFFIX)] += rates[row["id"]]  # type: ignore[assignment]
    return by_queue


def _queue_rows(connection: Connection) -> list[QueueRow]:
    queued, running = Counter[str](), Counter[str]()
    for (queue, _, job_state), count in counts.count_unfinished(connection).items():
        queued[queue] += count if job_state == "queued" else 0
        running[queue] += count if job_state == "running" else 0
    oldest = counts.oldest_due(connection)
    rows = [QueueRow(queue, queued[queue], running[queue], oldest.get(queue, 0.0)) for queue in queued | running]
    return sorted((row for row in rows if row.queued or row.running), key=lambda row: (-row.oldest, row.queue))
