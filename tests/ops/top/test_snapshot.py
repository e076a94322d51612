"""What a snapshot reads from Postgres and Redis."""

import pytest
import redis

from models.jobs import workers
from models.jobs.jobs import NewJob, enqueue
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim
from models.platform.database import Database
from models.platform.settings import Settings
from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from models.serving.state import QueueState, ServingState
from ops.top.snapshot import SnapshotReader, engine_rows


@pytest.fixture
def reader_settings(installation: Database, settings: Settings) -> Settings:
    """The settings of an installation with an empty database, whose web process cannot be asked."""
    return settings.model_copy(update={"database_url": installation.dsn, "engine": "scripted", "port": 1})


def insert_turns(database: Database, queued: int, running: int) -> list[str]:
    """Insert turns that have waited for a minute, and running ones."""
    jobs = [NewJob(kind="turn.run", account_id="acct_1") for _ in range(queued + running)]
    with database.transaction() as connection:
        connection.execute("INSERT INTO accounts (id, name) VALUES ('acct_1', 'a test')")
        for job in jobs:
            enqueue(connection, job)
        connection.execute("UPDATE jobs SET run_at = now() - interval '1 minute'")
        connection.execute("UPDATE jobs SET state = 'running' WHERE id = ANY(%s)", ([job.id for job in jobs[queued:]],))
    return [job.id for job in jobs[queued:]]


def test_snapshot_has_pools_queues_and_models(
    installation: Database, reader_settings: Settings, redis_client: redis.Redis
) -> None:
    # Given a worker with four slots, and turns
    with installation.transaction() as connection:
        workers.register(connection, "w", host="h", pid=7, pools=["inference"], threads={"inference": 4})
    running = insert_turns(installation, queued=3, running=2)
    reader = SnapshotReader(reader_settings, redis_client)
    # When one of them generates tokens
    events = [event(0, "response.output_text.delta", {}), event(1, "response.output_text.delta", {}, 30)]
    journal.append(redis_client, Claim(running[0], 1), events)
    snapshot = reader.read()
    # Then all of it is shown
    assert snapshot.workers == 1
    (engine,) = snapshot.engines
    assert (engine.name, engine.slots, engine.running, engine.queued) == ("scripted", 4, 2, 3)
    assert snapshot.tokens_per_second is not None
    assert snapshot.tokens_per_second > 0
    pool = next(pool for pool in snapshot.pools if pool.pool == "inference")
    assert (pool.workers, pool.threads, pool.queued, pool.running) == (1, 4, 3, 2)
    (queue,) = snapshot.queues
    assert (queue.queue, queue.queued, queue.running) == ("inference", 3, 2)
    assert 60 <= queue.oldest < 120
    assert snapshot.streams is None


def test_dead_jobs_and_unserved_queues_are_in_a_snapshot(
    dead_job: str, reader_settings: Settings, redis_client: redis.Redis
) -> None:
    snapshot = SnapshotReader(reader_settings, redis_client).read()

    assert snapshot.dead == 1
    assert snapshot.workers == 0


def test_tokens_are_unknown_while_redis_is_unavailable(installation: Database, reader_settings: Settings) -> None:
    reader = SnapshotReader(reader_settings, redis.Redis(port=1))

    assert reader.read().tokens_per_second is None


def test_models_of_an_endpoint_share_a_row() -> None:
    # Given an endpoint with two models, and a local one with batch work
    local = ServedModel("llama", ModelDescription("llama"), "inference", 4)
    remote = [ServedModel(name, ModelDescription(name, endpoint="groq"), "upstream.groq", 16) for name in ("a", "b")]
    queues = {"inference": QueueState(threads=4, running=1), "inference_batch": QueueState(running=2, waiting=5),
              "upstream.groq": QueueState(running=9)}  # fmt: skip
    state = ServingState(ServedModels([local, *remote], local), queues)
    # When rows are made of them
    first, second = engine_rows(state, {"inference": 12.5})
    # Then batch work counts with its model, and the endpoint has one row
    assert (first.name, first.running, first.queued, first.tokens_per_second) == ("llama", 3, 5, 12.5)
    assert (second.name, second.slots, second.running, second.tokens_per_second) == ("groq (2 models)", 16, 9, 0.0)
