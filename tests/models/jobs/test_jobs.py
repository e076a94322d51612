"""Enqueue, read and list jobs."""

from datetime import UTC, datetime

import pytest

from models.accounts.ownership import Access
from models.jobs.budgets import Draw
from models.jobs.catalogue import CATALOGUE, POOLS
from models.jobs.jobs import NewJob, enqueue, list_jobs, read
from models.journal.archive import read_archive
from models.journal.events import event
from models.platform.errors import SanghaError


def test_a_job_is_visible_to_its_account_only(job_store, account):
    job_id = job_store.enqueue(account, arguments={"n": 1})

    with job_store.database.connection() as connection:
        assert read(connection, job_id, Access.account(account)).arguments == {"n": 1}
        assert read(connection, job_id, Access.account(job_store.create_account())) is None
        assert list_jobs(connection, Access.account(job_store.create_account())) == []


def test_pages_are_newest_first_and_complete(job_store, account):
    job_ids = [job_store.enqueue(account, kind=kind) for kind in ["test.work", "test.other"] * 3]

    with job_store.database.connection() as connection:
        pages, after = [], None
        while page := list_jobs(connection, Access.account(account), after=after, limit=4):
            pages += [job.id for job in page]
            after = page[-1].id
        assert pages == job_ids[::-1]
        assert len(list_jobs(connection, Access.account(account), kind="test.other")) == 3
        assert list_jobs(connection, Access.account(account), state="running") == []


def test_a_rolled_back_job_is_not_enqueued(job_store, account):
    job = NewJob("test.work", account, opening=[event(0, "test.opened", {})])

    def fail():
        with job_store.database.transaction() as connection:
            enqueue(connection, job)
            raise SanghaError

    with pytest.raises(SanghaError):
        fail()

    with job_store.database.connection() as connection:
        assert read(connection, job.id, Access.account(account)) is None
        assert read_archive(connection, job.id).events == []


def test_a_job_with_a_used_unique_key_is_not_inserted(job_store, account):
    """Also after the first one has ended."""
    key, opening = f"once {account}", [event(0, "test.opened", {})]
    first = NewJob("test.work", account, unique_key=key, opening=opening)
    second = NewJob("test.work", account, unique_key=key, opening=opening)

    with job_store.database.transaction() as connection:
        assert enqueue(connection, first)
        assert not enqueue(connection, second)
    job_store.update(first.id, "state = 'completed'")
    with job_store.database.transaction() as connection:
        assert not enqueue(connection, second)

    with job_store.database.connection() as connection:
        assert [job.id for job in list_jobs(connection, Access.account(account))] == [first.id]
        assert read_archive(connection, second.id).events == []


def test_job_has_the_bytes_of_its_arguments_events_and_input(job_store, account):
    opening = [event(0, "test.opened", {"text": "y" * 1000})]
    job = NewJob("turn.run", account, {"texts": ["é" * 100]}, opening=opening, input_bytes=5000)
    with job_store.database.transaction() as connection:
        enqueue(connection, job)
        row = connection.execute("SELECT job_bytes FROM jobs WHERE id = %s", [job.id]).fetchone()

    assert row["job_bytes"] == len('{"texts":[""]}') + 200 + len(opening[0].data) + 5000


def test_every_kind_has_a_pool_and_valid_limits():
    served = [queue for queues in POOLS.values() for queue in queues]

    assert len(served) == len(set(served))
    for kind in CATALOGUE.values():
        assert kind.queue in served
        assert kind.attempts >= 1
        assert kind.time_limit > 0
        assert kind.backoff > 0

    queues = {kind.queue for kind in CATALOGUE.values()}
    assert all(queues & set(pool_queues) for pool, pool_queues in POOLS.items() if pool != "upstream")
    assert POOLS["upstream"] == ()  # its queues are those of the endpoints
    assert {"inference", "maintenance"} <= set(POOLS)


@pytest.mark.parametrize(
    "options",
    [
        {"unique_key": "once"},
        {"deadline_at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"reserved_tokens": 5},
        {"draw": Draw(tokens=5)},
        {"serial_key": None},
    ],
)
def test_a_coalescing_job_has_nothing_that_would_be_lost_with_a_job_that_is_not_inserted(account, options):
    with pytest.raises(ValueError, match="coalescing"):
        NewJob("test.work", account, **{"serial_key": "user", "coalesce": True, **options})


def test_a_coalescing_job_is_no_child(job_store, account):
    parent = job_store.start(account)

    with pytest.raises(ValueError, match="parent"), job_store.database.transaction() as connection:
        enqueue(connection, NewJob("test.work", account, serial_key="user", coalesce=True), parent=parent)


def test_a_coalescing_job_keeps_its_lane(job_store, account):
    job_id = job_store.enqueue(account, serial_key=f"user {account}", coalesce=True, lane="lane_of_user")

    assert job_store.job(job_id).lane == "lane_of_user"
