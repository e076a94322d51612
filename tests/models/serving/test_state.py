"""The state of models and queues, which requests share."""

import threading

from models.jobs import workers
from models.platform.database import Database
from models.platform.errors import Unavailable
from models.serving.served_models import ModelDescription
from models.serving.state import MAX_AGE, TOO_OLD, QueueState, ServingCache, read_state

FALLBACK = ModelDescription("small")


def test_state_counts_threads_and_jobs_of_each_queue(empty_job_store):
    # Given a worker of the default model, and jobs in three queues
    job_store = empty_job_store
    account = job_store.create_account()
    with job_store.database.connection() as connection:
        threads = {"inference": 4, "inference_batch": 3, "tools": 8}
        workers.register(connection, "w", host="here", pid=1, pools=["inference"], threads=threads)
    for queue in ("inference", "inference", "inference_batch", "tools"):
        job_store.update(job_store.enqueue(account), f"queue = '{queue}'")
    # When the state is read
    with job_store.database.connection() as connection:
        state = read_state(connection, FALLBACK)
    # Then it has the queues of models only
    assert state.queue("inference") == QueueState(threads=4, waiting=2, lanes=1)
    assert state.queue("inference_batch") == QueueState(threads=3, waiting=1, lanes=1)
    assert state.queue("tools") == state.queue("inference.other") == QueueState()


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_state_is_renewed_by_its_use_outside_of_the_request(empty_database):
    clock = Clock()
    renewed = threading.Event()
    cache = ServingCache(empty_database, lambda: FALLBACK, clock=clock)
    first = cache.state()
    assert cache.state() is first
    cache.renew = lambda: renewed.set()
    clock.now += MAX_AGE
    assert cache.state() is first
    assert renewed.wait(5)


def test_a_state_that_was_not_used_for_long_is_read_again_at_once(empty_database):
    clock = Clock()
    cache = ServingCache(empty_database, lambda: FALLBACK, clock=clock)
    first = cache.state()
    clock.now += TOO_OLD
    assert not cache.is_ready()
    assert cache.state() is not first


class UnavailableDatabase(Database):
    """A database that was available once."""

    def __init__(self, database):
        self.database, self.is_down = database, False

    def connection(self):
        if self.is_down:
            raise Unavailable("down")
        return self.database.connection()


def test_the_earlier_state_is_used_while_the_database_is_unavailable(empty_database):
    clock, database = Clock(), UnavailableDatabase(empty_database)
    cache = ServingCache(database, lambda: FALLBACK, clock=clock)
    first = cache.state()
    database.is_down = True
    clock.now += TOO_OLD
    assert cache.state() is first


def test_the_default_model_is_known_before_the_database_was_reached(empty_database):
    database = UnavailableDatabase(empty_database)
    database.is_down = True
    models = ServingCache(database, lambda: FALLBACK).state().models
    assert [(model.id, model.queue) for model in models] == [("small", "inference")]
