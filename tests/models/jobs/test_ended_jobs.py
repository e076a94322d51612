"""Trees of jobs that ended days ago move to `ended_jobs`, with their events, and are read, listed and deleted there."""

from dataclasses import fields, replace
from threading import Thread

import pytest

from bench.harness.waiting import wait_until
from models.accounts.ownership import Access
from models.jobs import ended_jobs, ended_partitions, job_deletion, jobs
from models.jobs.attempts import Ending, end
from models.jobs.children import wait_for_children
from models.jobs.dead_jobs import read_any
from models.jobs.ended_jobs import Cursor, move_batch
from models.jobs.jobs import PLATFORM_ACCOUNT, Job, NewJob
from models.jobs.stream_state import ended_ids, read_rewound_at
from models.journal.archive import archive, last_archived, read_archive
from models.journal.events import event
from models.platform.database import Database, fetch_all, fetch_one
from models.platform.ids import new_id
from models.turns import response_deletion, responses
from models.turns.responses import Response

#: Columns of a job that mean nothing after its end: `all_jobs` has constants for a moved one.
OF_THE_PROTOCOL = frozenset({
    "published_at", "serial_key", "unique_key", "pending_children", "message_id", "worker", "lease_until",
    "reserved_tokens", "claim_id", "join_rule", "wait_until", "deadline_at", "lane", "blocked",
    "traceparent",
})  # fmt: skip

WAITING_FOR_A_LOCK = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

LONG_AGO = "finished_at = finished_at - interval '3 days'"


@pytest.fixture
def job_store(empty_job_store):
    """The jobs of an empty database with all partitions."""
    ended_partitions.create_missing(empty_job_store.database)
    return empty_job_store


def end_job(job_store, job: Job, state="completed", *, result=None):
    """End a running job with two events, three days ago."""
    events = [
        event(0, "sangha:job.progress", {"job_id": job.id}, 2),
        event(1, "sangha:job.completed", {"job_id": job.id}),
    ]
    with job_store.database.transaction() as connection:
        end(connection, job, Ending(state, events[1:], result), events)
    job_store.update(job.id, LONG_AGO)
    return events


def ended_job(job_store, account_id, kind="test.work", **options) -> str:
    job = job_store.start(account_id, kind=kind, **options)
    end_job(job_store, job)
    return job.id


def ended_turn(job_store, account_id, **of_response) -> tuple[str, str]:
    """End a turn; returns the ids of its job and response."""
    job_id, response_id = ended_job(job_store, account_id, "turn.run"), new_id("resp")
    values = {"user_id": None, "conversation_id": None, "previous_id": None, "request": {}, "input": [], **of_response}
    response = Response(
        id=response_id, account_id=account_id, job_id=job_id, thread=response_id,
        created_at=job_store.job(job_id).created_at, **values
    )  # fmt: skip
    with job_store.database.transaction() as connection:
        connection.execute(responses.INSERT, responses.insert_parameters(response))
    return job_id, response_id


def move(database: Database, limit=100) -> int:
    """Move all jobs in batches of this many trees. Returns how many were moved."""
    moved, cursor = 0, Cursor()
    while cursor:
        with database.transaction() as connection:
            batch = move_batch(connection, limit, after=cursor)
        moved, cursor = moved + batch.moved, batch.next
    return moved


def tables_of(database, job_id) -> list[str]:
    """Return the tables that have the job."""
    with database.connection() as connection:
        return [
            table for table in ("jobs", "ended_jobs")
            if fetch_one(connection, f"SELECT FROM {table} WHERE id = %(id)s", {"id": job_id}) is not None
        ]  # fmt: skip


def count(database, statement) -> int:
    with database.connection() as connection:
        return fetch_one(connection, f"SELECT count(*) AS count FROM {statement}")["count"]


def test_a_moved_job_is_read_as_before(job_store):
    # Given an ended job with a traceback, progress and a rewind
    account_id = job_store.create_account()
    job_id = ended_job(job_store, account_id)
    job_store.update(job_id, """traceback = 'line 1', progress = '{"done": 1}', rewound_at = 1, crashes = 1""")
    before = job_store.job(job_id)

    # When it is moved
    assert move(job_store.database) == 1

    # Then all readers return it as before, except for what mattered only before its end
    assert tables_of(job_store.database, job_id) == ["ended_jobs"]
    with job_store.database.connection() as connection:
        after = jobs.read(connection, job_id, Access.account(account_id))
        assert jobs.list_jobs(connection, Access.account(account_id)) == [after]
        assert read_any(connection, job_id) == after
        assert read_rewound_at(connection, job_id) == 1
        assert jobs.read(connection, job_id, Access.account("acct_other")) is None
        assert ended_ids(connection, [job_id]) == {job_id}
    assert replace(before, **{name: getattr(after, name) for name in OF_THE_PROTOCOL}) == after


def test_the_view_has_the_columns_of_the_record(job_store):
    with job_store.database.connection() as connection:
        rows = fetch_all(
            connection,
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'all_jobs'",
        )

    assert {row["column_name"] for row in rows} == {field.name for field in fields(Job)}


def lines(archived):
    """Return the numbers and the data of events; the tokens of each one are not kept."""
    return [(event.sequence, event.data) for event in archived.events]


def test_moved_events_are_read_from_any_number(job_store):
    account_id = job_store.create_account()
    job = job_store.start(account_id)
    with job_store.database.transaction() as connection:
        archive(connection, job.id, [event(0, "sangha:job.progress", {"note": "äöü\n🦙"}, 3)])
    last = event(1, "sangha:job.completed", {"job_id": job.id}, 4)
    with job_store.database.transaction() as connection:
        end(connection, job, Ending("completed", [last]), [last])
    job_store.update(job.id, LONG_AGO)
    with job_store.database.connection() as connection:
        before = [read_archive(connection, job.id, after) for after in (-1, 0, 1)]

    assert move(job_store.database) == 1

    with job_store.database.connection() as connection:
        after = [read_archive(connection, job.id, after) for after in (-1, 0, 1)]
        assert last_archived(connection, job.id) == 1
    assert [lines(archived) for archived in after] == [lines(archived) for archived in before]
    assert (after[0].tokens, after[2].tokens) == (7, 0)
    assert count(job_store.database, "job_events") == 0


def test_a_job_without_events_is_moved(job_store):
    job_id = job_store.enqueue(job_store.create_account())
    job_store.update(job_id, "state = 'cancelled', finished_at = now() - interval '3 days'")

    assert move(job_store.database) == 1

    with job_store.database.connection() as connection:
        assert read_archive(connection, job_id).events == []
        assert last_archived(connection, job_id) == -1


def test_pages_of_jobs_contain_moved_and_other_jobs_in_order(job_store):
    # Given jobs of which every second one is moved
    account_id = job_store.create_account()
    job_ids = [job_store.enqueue(account_id) for _ in range(6)]
    for job_id in job_ids[::2]:
        job_store.update(job_id, "state = 'completed', finished_at = now() - interval '3 days'")
    assert move(job_store.database, limit=2) == 3

    # When they are listed in pages
    with job_store.database.connection() as connection:
        first = jobs.list_jobs(connection, Access.account(account_id), limit=4)
        second = jobs.list_jobs(connection, Access.account(account_id), limit=4, after=first[-1].id)
        completed = jobs.list_jobs(connection, Access.account(account_id), state="completed")

    # Then each is listed once, newest first
    assert [job.id for job in [*first, *second]] == job_ids[::-1]
    assert [job.id for job in completed] == job_ids[::2][::-1]


@pytest.mark.parametrize("user_id", [None, "user_1"])
def test_a_page_of_jobs_is_read_by_the_indexes_of_both_tables(job_store, user_id):
    access = Access("acct_1", user_id, unowned=False)
    parameters = {**access.parameters, "kind": None, "state": None, "after": "job_5", "limit": 20}
    with job_store.database.transaction() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        rows = fetch_all(connection, "EXPLAIN " + jobs.LIST, parameters)
        plan = "\n".join(row["QUERY PLAN"] for row in rows)

    assert "Merge Append" in plan
    assert "Sort  " not in plan
    assert "jobs_account on jobs" in plan
    assert "on ended_jobs_kept" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(("state", "index"), [("running", None), ("failed", "account_id_state_id_idx")])
def test_a_page_of_jobs_in_a_state_reads_few_moved_jobs(job_store, state, index):
    access = Access.account("acct_1")
    parameters = {**access.parameters, "kind": None, "state": state, "after": None, "limit": 20}
    with job_store.database.transaction() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        rows = fetch_all(connection, "EXPLAIN " + jobs.LIST, parameters)
        moved = [row["QUERY PLAN"] for row in rows if "on ended_jobs" in row["QUERY PLAN"]]

    assert all(index in line for line in moved) if index else not moved


def test_a_unique_key_is_free_once_its_job_has_moved(job_store):
    account_id = job_store.create_account()
    first = ended_job(job_store, account_id, unique_key="a key")
    again = job_store.enqueue(account_id, unique_key="a key")
    assert move(job_store.database) == 1

    second = job_store.enqueue(account_id, unique_key="a key")

    assert [tables_of(job_store.database, job_id) for job_id in (first, again, second)] == [
        ["ended_jobs"],
        [],
        ["jobs"],
    ]


def test_a_parent_whose_child_is_just_moving_gets_a_new_one(job_store):
    """The ended job with the child's unique key is moved between the insertion that it prevents and its adoption."""
    # Given a mover that has locked a job
    account_id = job_store.create_account()
    old, parent = ended_job(job_store, account_id, unique_key="a key"), job_store.start(account_id)
    child = NewJob("test.work", account_id, unique_key="a key")

    def wait():
        with job_store.database.transaction() as connection:
            wait_for_children(connection, parent, [child])

    thread = Thread(target=wait)
    with job_store.database.transaction() as connection:
        connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (old,))
        # When a parent enqueues a child with its key, which adopts the job as soon as it is not locked
        thread.start()
        wait_until(lambda: count(job_store.database, WAITING_FOR_A_LOCK), 10)
        assert move_batch(connection, 10).moved == 1
    thread.join(10)

    # Then the child is inserted
    assert tables_of(job_store.database, child.id) == ["jobs"]
    assert job_store.job(child.id).parent_id == parent.id
    assert job_store.job(parent.id).state == "waiting"


def test_a_tree_moves_as_a_whole_once_all_of_it_has_ended(job_store):
    # Given a root that ended, with an unfinished grandchild
    account_id = job_store.create_account()
    root, child, grandchild = (ended_job(job_store, account_id) for _ in range(3))
    job_store.update(child, f"parent_id = '{root}'")
    job_store.update(grandchild, f"parent_id = '{child}', state = 'running'")

    # When ended jobs are moved before and after its end
    before = move(job_store.database)
    job_store.update(grandchild, "state = 'failed'")
    after = move(job_store.database)

    # Then the tree is moved in one step
    assert (before, after) == (0, 3)
    assert count(job_store.database, "jobs") == 0


@pytest.mark.parametrize("of_child", [False, True])
@pytest.mark.parametrize(
    "assignments",
    [
        "state = 'dead'",
        "state = 'running'",
        """state = 'failed', error = '{"code": "effect_unknown"}'""",
    ],
)
def test_a_job_that_an_operator_or_a_worker_may_continue_stays(job_store, assignments, of_child):
    account_id = job_store.create_account()
    root, child = ended_job(job_store, account_id), ended_job(job_store, account_id)
    job_store.update(child, f"parent_id = '{root}'")
    job_store.update(child if of_child else root, assignments)

    assert move(job_store.database) == 0
    assert tables_of(job_store.database, root) == tables_of(job_store.database, child) == ["jobs"]


@pytest.mark.parametrize(("state", "moved"), [("intent", 0), ("unknown", 0), ("done", 1)])
def test_a_job_with_an_unresolved_effect_stays(job_store, state, moved):
    account_id = job_store.create_account()
    job_id = ended_job(job_store, account_id)
    with job_store.database.connection() as connection:
        connection.execute(
            "INSERT INTO effects (job_id, step, account_id, idempotency_key, request_hash, state)"
            " VALUES (%s, 'charge', %s, %s, 'a hash', %s)",
            (job_id, account_id, new_id("key"), state),
        )

    assert move(job_store.database) == moved


@pytest.mark.parametrize(("kind", "age", "moved"), [
    ("memory.search", "3 days", 0), ("test.work", "1 day", 0), ("test.work", "49 hours", 1)
])  # fmt: skip
def test_recent_jobs_and_unclaimed_results_stay(job_store, kind, age, moved):
    job_id = job_store.enqueue(job_store.create_account(), kind)
    job_store.update(job_id, f"state = 'completed', finished_at = now() - interval '{age}'")

    assert move(job_store.database) == moved


def test_trees_that_stay_do_not_stop_later_ones(job_store):
    account_id = job_store.create_account()
    staying, moving = ended_job(job_store, account_id), ended_job(job_store, account_id)
    child = ended_job(job_store, account_id)
    job_store.update(child, f"parent_id = '{staying}', state = 'dead'")
    job_store.update(staying, "finished_at = finished_at - interval '1 day'")

    assert move(job_store.database, limit=1) == 1
    assert tables_of(job_store.database, moving) == ["ended_jobs"]


def test_a_locked_tree_is_passed_over(job_store):
    account_id = job_store.create_account()
    root, child, other = (ended_job(job_store, account_id) for _ in range(3))
    job_store.update(child, f"parent_id = '{root}'")
    with job_store.database.transaction() as connection:
        connection.execute("SELECT FROM jobs WHERE id = %s FOR NO KEY UPDATE", (child,))

        assert move(job_store.database) == 1

    assert [tables_of(job_store.database, job_id) for job_id in (root, child, other)] == [
        ["jobs"], ["jobs"], ["ended_jobs"]
    ]  # fmt: skip


def test_jobs_are_kept_for_their_time_and_turns_for_ever(job_store):
    account_id = job_store.create_account()
    platform, of_account, turn = (
        ended_job(job_store, owner, kind)
        for owner, kind in ((PLATFORM_ACCOUNT, "test.work"), (account_id, "test.work"), (account_id, "turn.run"))
    )

    assert move(job_store.database) == 3

    with job_store.database.connection() as connection:
        rows = fetch_all(
            connection,
            "SELECT id, extract(day FROM delete_after - finished_at)::int AS days FROM ended_jobs"
            " WHERE delete_after <> 'infinity'",
        )
        kept = fetch_all(connection, "SELECT id FROM ended_jobs_kept")
    assert {row["id"]: row["days"] for row in rows} == {platform: 7, of_account: 30}
    assert [row["id"] for row in kept] == [turn]


def test_a_job_that_ended_before_its_time_is_deleted_with_the_present_week(job_store):
    job_id = job_store.enqueue(PLATFORM_ACCOUNT)
    job_store.update(job_id, "state = 'completed', finished_at = now() - interval '400 days'")

    assert move(job_store.database) == 1

    assert count(job_store.database, "ended_jobs WHERE delete_after <= now()") == 1


def test_a_move_that_does_not_commit_changes_nothing(job_store):
    account_id = job_store.create_account()
    job_id, response_id = ended_turn(job_store, account_id)
    with job_store.database.connection() as connection, connection.transaction(force_rollback=True):
        assert move_batch(connection, 10).moved == 1

    assert tables_of(job_store.database, job_id) == ["jobs"]
    with job_store.database.connection() as connection:
        assert len(read_archive(connection, job_id).events) == 2
        assert responses.read(connection, response_id, Access.account(account_id)) is not None


def test_a_killed_mover_leaves_each_job_in_one_table(job_store, monkeypatch):
    """The process dies between inserting and deleting."""
    account_id = job_store.create_account()
    job_id = ended_job(job_store, account_id)
    monkeypatch.setattr(ended_jobs, "DELETE_MOVED", "SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Exception, match="unavailable"):
        move(job_store.database)

    monkeypatch.undo()
    assert tables_of(job_store.database, job_id) == ["jobs"]
    assert move(job_store.database) == 1
    assert tables_of(job_store.database, job_id) == ["ended_jobs"]


def test_another_session_sees_a_moving_job_exactly_once(job_store):
    account_id = job_store.create_account()
    job_id = ended_job(job_store, account_id)
    with job_store.database.transaction() as connection:
        assert move_batch(connection, 10).moved == 1
        assert count(job_store.database, f"all_jobs WHERE id = '{job_id}'") == 1
    assert count(job_store.database, f"all_jobs WHERE id = '{job_id}'") == 1


def test_moving_a_turn_keeps_its_response(job_store):
    account_id = job_store.create_account()
    _, response_id = ended_turn(job_store, account_id)
    with job_store.database.connection() as connection:
        before = responses.read(connection, response_id, Access.account(account_id))

    assert move(job_store.database) == 1

    with job_store.database.connection() as connection:
        assert responses.read(connection, response_id, Access.account(account_id)) == before


@pytest.mark.parametrize(
    ("of_response", "moved"),
    [({}, 1), ({"expires_at": "2999-01-01"}, 0), ({"unremembered": True}, 1)],
    ids=["stored", "unstored", "never to be remembered, without a user"],
)
def test_turns_that_are_looked_for_in_jobs_stay(job_store, of_response, moved):
    ended_turn(job_store, job_store.create_account(), **of_response)

    assert move(job_store.database) == moved


@pytest.mark.parametrize("moved", [False, True])
def test_deleting_a_response_deletes_its_job_and_events(job_store, moved):
    account_id = job_store.create_account()
    job_id, response_id = ended_turn(job_store, account_id)
    child = ended_job(job_store, account_id)
    job_store.update(child, f"parent_id = '{job_id}'")
    if moved:
        assert move(job_store.database) == 2

    with job_store.database.transaction() as connection:
        assert not response_deletion.delete(connection, response_id, "acct_other")
        assert response_deletion.delete(connection, response_id, account_id)
        assert not response_deletion.delete(connection, response_id, account_id)

    assert tables_of(job_store.database, job_id) == tables_of(job_store.database, child) == []
    assert count(job_store.database, "responses") == count(job_store.database, "job_events") == 0


@pytest.mark.parametrize("moved", [False, True])
def test_deleting_a_job_deletes_its_response(job_store, moved):
    """Also by the statements of the previous version."""
    account_id = job_store.create_account()
    job_id, _ = ended_turn(job_store, account_id)
    if moved:
        assert move(job_store.database) == 1

    with job_store.database.connection() as connection:
        assert job_deletion.delete_ended(connection, job_id, account_id)

    assert count(job_store.database, "responses") == 0
    assert tables_of(job_store.database, job_id) == []


def test_a_response_that_is_deleted_while_its_job_moves_is_deleted(job_store):
    # Given a mover that has not committed yet
    account_id = job_store.create_account()
    job_id, response_id = ended_turn(job_store, account_id)
    deleted: list[bool] = []

    def delete():
        with job_store.database.transaction() as connection:
            deleted.append(response_deletion.delete(connection, response_id, account_id))

    thread = Thread(target=delete)
    with job_store.database.transaction() as connection:
        assert move_batch(connection, 10).moved == 1
        # When the response is deleted meanwhile, which waits for the mover
        thread.start()
        wait_until(lambda: count(job_store.database, WAITING_FOR_A_LOCK), 10)
    thread.join(10)

    # Then it is deleted with the moved job
    assert deleted == [True]
    assert tables_of(job_store.database, job_id) == []
    assert count(job_store.database, "responses") == 0
