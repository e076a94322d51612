"""The catalogue, the declared actors and the timetable name the same kinds of work."""

import importlib

import pytest

from models.jobs.catalogue import CATALOGUE, POOLS, queue_of_message
from models.platform.settings import Settings
from scheduler.timetable import TIMETABLE
from tasks.broker import build_broker
from tasks.job_runner import JobRunner


@pytest.fixture
def declared(tmp_path):
    """The actors of every pool, by name, and the threads of each pool; declaring them needs no server."""
    settings = Settings(data_dir=tmp_path, engine="scripted")
    broker = build_broker(settings.broker_address)
    runner = JobRunner("w", settings, None, None, broker, None, None)
    actors, threads = {}, {}
    for pool in (pool for pool, queues in POOLS.items() if queues):  # of the others the settings name the queues
        before = set(broker.actors)
        threads[pool] = importlib.import_module(f"tasks.{pool}").declare_actors(runner)
        actors |= {name: (pool, broker.actors[name]) for name in set(broker.actors) - before}
    return actors, threads


def test_catalogue_and_declared_actors_agree(declared):
    actors, threads = declared

    assert set(actors) == set(CATALOGUE)
    for name, (pool, actor) in actors.items():
        assert actor.queue_name == CATALOGUE[name].queue
        assert actor.queue_name in POOLS[pool]
        assert actor.priority == CATALOGUE[name].priority
    for pool, counts in threads.items():
        assert set(map(queue_of_message, counts)) == set(POOLS[pool])
        assert all(count >= 1 for count in counts.values())


def test_dramatiq_has_no_retries_and_no_delay_queues(declared):
    """Both would keep messages in a worker's memory."""
    actors, _ = declared
    broker = next(iter(actors.values()))[1].broker

    assert [type(middleware).__name__ for middleware in broker.middleware] == ["CurrentMessage"]
    assert broker.get_declared_delay_queues() == set()


def test_timetable_names_kinds_of_the_catalogue():
    assert set(TIMETABLE) <= set(CATALOGUE)
