"""Given a kind of work, then it stands in the catalogue, has an actor in its pool; the timetable names no other."""

import importlib

import pytest

from models.jobs.catalogue import CATALOGUE, POOLS
from models.platform.settings import Settings
from scheduler.timetable import TIMETABLE
from tasks.broker import build_broker
from tasks.job_runner import JobRunner


@pytest.fixture
def declared(tmp_path):
    """Every pool's actors, by name: declaring them needs no server."""
    settings = Settings(data_dir=tmp_path, engine="scripted")
    broker = build_broker(settings.broker_address)
    runner = JobRunner("w", settings, None, None, broker, None, None)
    found, threads = {}, {}
    for pool in POOLS:
        before = set(broker.actors)
        threads[pool] = importlib.import_module(f"tasks.{pool}").declare_actors(runner)
        found |= {name: (pool, broker.actors[name]) for name in set(broker.actors) - before}
    return found, threads


def test_every_kind_has_an_actor_and_every_actor_a_kind(declared):
    actors, threads = declared

    assert set(actors) == set(CATALOGUE)
    for name, (pool, actor) in actors.items():
        assert actor.queue_name == CATALOGUE[name].queue
        assert actor.queue_name in POOLS[pool]
        assert actor.priority == CATALOGUE[name].priority
    assert all(count >= 1 for count in threads.values())


def test_dramatiq_neither_retries_nor_delays(declared):
    """Both would keep messages in a worker's memory."""
    actors, _ = declared
    broker = next(iter(actors.values()))[1].broker

    assert [type(middleware).__name__ for middleware in broker.middleware] == ["CurrentMessage"]
    assert broker.get_declared_delay_queues() == set()


def test_the_timetable_names_kinds_of_the_catalogue():
    assert set(TIMETABLE) <= set(CATALOGUE)
