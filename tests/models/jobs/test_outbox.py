"""Select due jobs fairly, promote scheduled ones, and send lost messages again."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import ClientCursor
from psycopg.types.json import Jsonb

from bench.harness.waiting import wait_until
from models.jobs import outbox
from models.jobs.attempts import Ending, end
from models.jobs.catalogue import CATALOGUE
from models.jobs.children import wait_for_children
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.outbox import BATCH, mark_published, shard_of
from models.platform.ids import new_id

WINDOWS = {"maintenance": 4, "inference": 4}


def publish_lane(job_store, *lanes, window_sizes=WINDOWS):
    """Publish once like a relay after a commit. Returns the ids published, in order."""
    with job_store.database.transaction() as connection:
        due = outbox.lock_due_jobs_of_lanes(connection, window_sizes, lanes)
        mark_published(connection, due)
    return [job.id for job in due]


def complete(job_store, job_id):
    with job_store.database.transaction() as connection:
        end(connection, job_store.job(job_id), Ending("completed", []), [])


def accounts_of_one_shard(job_store, count):
    accounts: list[str] = []
    while len(accounts) < count:
        account = job_store.create_account()
        if shard_of(account) == 1:
            accounts.append(account)
    return accounts


def test_two_hundred_jobs_of_one_account_do_not_delay_another_account(empty_job_store):
    job_store = empty_job_store
    greedy, modest = job_store.create_account(), job_store.create_account()
    with job_store.database.transaction() as connection:
        for _ in range(200):
            enqueue(connection, NewJob("test.work", greedy))
    assert len(job_store.publish()) == 4

    other_job = job_store.enqueue(modest)

    assert job_store.publish() == [other_job]


def test_a_nudge_publishes_the_jobs_of_its_lanes_only(empty_job_store):
    job_store = empty_job_store
    first, second = job_store.create_account(), job_store.create_account()
    mine, _ = job_store.enqueue(first), job_store.enqueue(second)

    assert publish_lane(job_store, first) == [mine]
    assert publish_lane(job_store, first) == []


def test_the_window_counts_all_kinds_of_a_queue(empty_job_store, monkeypatch):
    job_store = empty_job_store
    account = job_store.create_account()
    for kind in ("test.work", "maintenance.prune"):  # of the same queue
        for _ in range(4):
            job_store.enqueue(account, kind=kind)
    job_store.enqueue(account, kind="test.other")

    assert len(publish_lane(job_store, account)) == 4 + 1


def test_a_lane_has_a_window_of_its_own(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for lane in ("whe_1", "whe_2"):
        for _ in range(6):
            job_store.enqueue(account, lane=lane)

    assert len(publish_lane(job_store, "whe_1")) == 4
    assert len(job_store.publish()) == 4


def test_within_a_lane_the_lower_priority_is_published_first(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    turns = [job_store.enqueue(account, kind="turn.run") for _ in range(2)]
    count = job_store.enqueue(account, kind="tokens.count")

    assert publish_lane(job_store, account) == [count, *turns]


def test_each_end_lets_one_more_job_be_published(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(6):
        job_store.enqueue(account)
    published = job_store.publish()

    job_store.claim(published[0])
    assert job_store.publish() == []  # a running job still counts
    complete(job_store, published[0])

    assert len(job_store.publish()) == 1


def test_suspects_run_one_at_a_time(empty_job_store):
    """A job that kills its process must not run beside the same jobs again and again."""
    job_store = empty_job_store
    suspects = [job_store.enqueue(account) for account in accounts_of_one_shard(job_store, 3)]
    for job_id in suspects:
        job_store.update(job_id, "crashes = 2")
    fresh = job_store.enqueue(job_store.create_account())

    assert sorted(job_store.publish()) == sorted([suspects[0], fresh])
    assert job_store.publish() == []
    job_store.claim(suspects[0])
    complete(job_store, suspects[0])

    assert job_store.publish() == [suspects[1]]


def test_relays_of_different_shards_publish_one_suspect_of_a_queue(empty_job_store):
    # Given suspects of one queue in every shard
    job_store = empty_job_store
    accounts = [job_store.create_account() for _ in range(12)]
    for account in accounts:
        job_store.update(job_store.enqueue(account), "crashes = 2")
    # When relays publish them at the same time
    published = []

    def relay(account):
        published.extend(publish_lane(job_store, account))

    relays = [threading.Thread(target=relay, args=(account,)) for account in accounts]
    for thread in relays:
        thread.start()
    for thread in relays:
        thread.join(20)
    # Then one of them is in flight
    assert len(published) == 1


def test_a_waiting_parent_does_not_count(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(5):
        job_store.enqueue(account)
    parent = job_store.claim(job_store.publish()[0])
    job_store.update(parent.id, "state = 'waiting', pending_children = 1")

    assert len(job_store.publish()) == 1


def test_a_tree_is_not_delayed_by_what_its_account_asks_for_later(empty_job_store):
    # Given a root with a child, and jobs of the account that were enqueued between them
    job_store = empty_job_store
    account = job_store.create_account()
    root = job_store.claim(job_store.enqueue(account))
    later = [job_store.enqueue(account) for _ in range(6)]
    child = NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        wait_for_children(connection, root, [child])

    # When
    published = job_store.publish()

    # Then the child comes first, and so does its parent once the child has ended
    assert published == [child.id, *later[:3]]
    job_store.claim(child.id)
    complete(job_store, child.id)
    assert job_store.publish() == [root.id]


def test_a_tree_that_has_waited_for_hours_counts_as_due_for_minutes(empty_job_store):
    job_store = empty_job_store
    root = job_store.claim(job_store.enqueue(job_store.create_account()))
    job_store.update(root.id, "created_at = now() - interval '5 hours'")
    child = NewJob("test.work", root.account_id)

    with job_store.database.transaction() as connection:
        wait_for_children(connection, root, [child])

    age = datetime.now(UTC) - job_store.job(child.id).run_at
    assert timedelta(minutes=9) < age < timedelta(minutes=11)


def test_the_longest_due_are_published_first_and_a_pass_is_limited(empty_job_store):
    job_store = empty_job_store
    accounts = accounts_of_one_shard(job_store, BATCH + 2)
    jobs = [job_store.enqueue(account) for account in accounts]
    job_store.update(jobs[-1], "run_at = now() - interval '1 hour'")

    first = job_store.publish()

    assert first[0] == jobs[-1]
    assert len(first) == BATCH
    assert {*first, *job_store.publish()} == set(jobs)


def test_a_pass_visits_some_lanes_and_the_next_one_continues(empty_job_store, monkeypatch):
    # Given more lanes of one shard than a pass visits
    job_store = empty_job_store
    monkeypatch.setattr(outbox, "LANES", 2)
    jobs = {account: job_store.enqueue(account) for account in sorted(accounts_of_one_shard(job_store, 5))}
    # When passes follow each other
    cursor: dict[str, str] = {}
    passes = []
    for _ in range(3):
        with job_store.database.transaction() as connection:
            due = outbox.lock_due_jobs_of_shard(connection, WINDOWS, 1, cursor)
        passes.append({job.id for job in due})
    # Then they visit the lanes in order, and end after the last one
    ids = list(jobs.values())
    assert passes == [set(ids[:2]), set(ids[2:4]), {ids[4]}]
    assert cursor == {}


def test_the_sweeper_leaves_out_a_queue_with_many_jobs_in_flight(empty_job_store, monkeypatch):
    job_store = empty_job_store
    monkeypatch.setattr(outbox, "DEPTH", 1)
    monkeypatch.setattr(outbox, "SMALLEST_DEPTH", 3)
    accounts = accounts_of_one_shard(job_store, 5)
    for account in accounts[:4]:
        job_store.enqueue(account)
    assert len(job_store.publish()) == 4

    last = job_store.enqueue(accounts[4])

    assert job_store.publish() == []
    assert publish_lane(job_store, accounts[4]) == [last]  # somebody may wait for it


def test_a_pass_of_the_sweeper_probes_the_index_for_queues_with_due_jobs(empty_job_store):
    """A join would read all due jobs of the shard: 47 ms of a pass beside 100,000, while it holds the shard's lock."""
    # Given the statement of a pass
    queues = [{"queue": queue, "window": 4, "most_in_flight": 256, "after": ""} for queue in WINDOWS]
    parameters = {"shard": 1, "queues": Jsonb(queues), "kinds": list(CATALOGUE), "platform": PLATFORM_ACCOUNT}
    with empty_job_store.database.connection() as connection:
        bound = ClientCursor(connection).mogrify(outbox.DUE_OF_SHARD, {**parameters, "most_lanes": 128, "limit": 64})

        # When Postgres plans it
        plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(f"EXPLAIN {bound}".encode()).fetchall())

    # Then it neither joins the due jobs nor reads all keys of running ones
    assert "jobs_due" in plan
    assert "Semi Join" not in plan
    assert "hashed SubPlan" not in plan


def test_jobs_due_later_are_scheduled_and_promoted_when_due(empty_job_store):
    # Given a job that is due in an hour
    job_store = empty_job_store
    account = job_store.create_account()
    later = job_store.enqueue(account, run_at=datetime.now(UTC) + timedelta(hours=1))
    assert job_store.job(later).state == "scheduled"
    # When the sweeper looks before that time and after it
    with job_store.database.connection() as connection:
        assert outbox.promote_due(connection) == 0
        assert job_store.publish() == []
        assert job_store.claim(later) is None
        job_store.update(later, "run_at = now() - interval '1 second'")
        assert outbox.promote_due(connection) == 1
    # Then it is published once it is due
    assert job_store.publish() == [later]


def test_a_wait_and_a_deadline_that_have_passed_queue_the_job(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    waiting, late, early = (job_store.enqueue(account) for _ in range(3))
    job_store.update(waiting, "state = 'waiting', wait_until = now() - interval '1 second'")
    job_store.update(late, "state = 'scheduled', run_at = now() + interval '1 hour', deadline_at = now()")
    job_store.update(early, "state = 'waiting', wait_until = now() + interval '1 hour'")

    with job_store.database.connection() as connection:
        assert outbox.promote_due(connection) == 2

    assert [job_store.job(job_id).state for job_id in (waiting, late, early)] == ["queued", "queued", "waiting"]


def test_jobs_that_are_not_due_or_of_an_unknown_kind_are_not_published(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    later, strange = job_store.enqueue(account), job_store.enqueue(account)
    job_store.update(later, "run_at = now() + interval '1 hour'")  # as the previous version inserts it
    job_store.update(strange, "kind = 'test.of_tomorrow'")  # of another version, during an upgrade

    assert job_store.publish() == publish_lane(job_store, account) == []


def test_the_platforms_own_jobs_have_a_wide_window(empty_job_store):
    job_store = empty_job_store
    for _ in range(20):
        job_store.enqueue(PLATFORM_ACCOUNT)

    assert len(job_store.publish({"maintenance": 1})) == 20


def test_jobs_with_a_serial_key_run_one_by_one_in_order(empty_job_store):
    job_store = empty_job_store
    account, other = job_store.create_account(), job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    third = job_store.enqueue(other, serial_key="thread", kind="test.other")
    assert [job_store.job(job_id).blocked for job_id in (first, second, third)] == [False, True, True]
    order = []
    for _ in range(3):
        (job_id,) = job_store.publish()
        order.append(job_id)
        assert job_store.publish() == []
        assert job_store.claim(job_id) is not None
        assert job_store.publish() == []
        complete(job_store, job_id)

    assert order == [first, second, third]


@pytest.mark.parametrize("state", ["scheduled", "queued", "running", "waiting"])
@pytest.mark.parametrize("blocked", [True, False])
def test_a_serial_job_waits_for_retries_and_children_of_the_one_before(empty_job_store, state, blocked):
    """Also if it is not marked as blocked, as by the previous version."""
    job_store = empty_job_store
    account = job_store.create_account()
    first = job_store.enqueue(account, serial_key="thread")
    second = job_store.enqueue(account, serial_key="thread")
    job_store.update(first, f"state = '{state}', attempt = 1, run_at = now() + interval '1 hour'")
    job_store.update(second, f"blocked = {blocked}")

    assert job_store.publish() == publish_lane(job_store, account) == []


def test_serial_order_is_that_of_the_inserts_and_not_that_of_the_ids(empty_job_store):
    """Ids carry the clock of the process that made them, and clocks differ."""
    job_store = empty_job_store
    account = job_store.create_account()
    ids = sorted(new_id("job") for _ in range(3))
    for job_id in reversed(ids):
        job_store.enqueue(account, serial_key="thread", id=job_id)
    order = []
    for _ in ids:
        order += job_store.publish()
        job_store.claim(order[-1])
        complete(job_store, order[-1])

    assert order == ids[::-1]


def test_an_insert_and_the_end_of_the_job_before_leave_no_job_blocked(empty_job_store):
    # Given a transaction that ends a job, and one that inserts the next of its key meanwhile
    job_store = empty_job_store
    account = job_store.create_account()
    first = job_store.start(account, serial_key="thread")
    ending, inserted = threading.Event(), threading.Event()

    def insert():
        ending.wait(20)
        job_store.enqueue(account, serial_key="thread")
        inserted.set()

    inserting = threading.Thread(target=insert)
    inserting.start()
    with job_store.database.transaction() as connection:
        end(connection, first, Ending("completed", []), [])
        ending.set()
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: connection.execute(waits).fetchone() is not None)
    # When both have committed
    assert inserted.wait(20)
    inserting.join(20)
    # Then the new job may run
    assert len(job_store.publish()) == 1


def test_a_job_that_the_previous_version_left_blocked_is_unblocked(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    first, second, third = (job_store.enqueue(account, serial_key="thread") for _ in range(3))
    job_store.update(first, "state = 'completed'")

    with job_store.database.connection() as connection:
        assert outbox.unblock_left(connection) == 1

    assert [job_store.job(job_id).blocked for job_id in (second, third)] == [False, True]


def test_a_claim_out_of_order_is_given_back(empty_job_store):
    """Of two serial jobs only one runs, whatever messages exist."""
    job_store = empty_job_store
    account = job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    job_store.claim(first)
    job_store.update(second, "published_at = now()")

    assert job_store.claim(second) is None
    assert (job_store.job(second).state, job_store.job(second).published_at) == ("queued", None)
    complete(job_store, first)
    assert job_store.publish() == [second]


def test_two_concurrent_relays_publish_each_job_once(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(4):
        job_store.enqueue(account)
    published_ids, inside, go = [], threading.Event(), threading.Event()

    def slow_relay():
        with job_store.database.transaction() as connection:
            jobs = outbox.lock_due_jobs_of_lanes(connection, WINDOWS, [account])
            inside.set()
            go.wait(20)
            mark_published(connection, jobs)
        published_ids.extend(job.id for job in jobs)

    slow = threading.Thread(target=slow_relay)
    slow.start()
    assert inside.wait(20)
    fast = threading.Thread(target=lambda: published_ids.extend(job_store.publish()))
    fast.start()
    with job_store.database.connection() as connection:
        waits = (
            "SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        )
        wait_until(lambda: connection.execute(waits).fetchone() is not None)
    go.set()
    slow.join(20)
    fast.join(20)

    assert len(published_ids) == len(set(published_ids)) == 4


def test_relays_of_different_lanes_do_not_wait_for_each_other(empty_job_store):
    job_store = empty_job_store
    first, second = job_store.create_account(), job_store.create_account()
    while shard_of(second) == shard_of(first):
        second = job_store.create_account()
    other_job = job_store.enqueue(second)

    with job_store.database.transaction() as connection:
        outbox.lock_due_jobs_of_lanes(connection, WINDOWS, [first])

        assert publish_lane(job_store, second) == [other_job]


def test_marking_skips_jobs_whose_state_has_changed(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    claimed, back = job_store.enqueue(account), job_store.enqueue(account)
    with job_store.database.transaction() as connection:
        due = outbox.lock_due_jobs_of_lanes(connection, WINDOWS, [account])
        job_store.claim(claimed)
        job_store.claim(back)
        job_store.update(back, "state = 'queued', published_at = NULL, run_at = now() + interval '1 hour'")
        mark_published(connection, due)

    assert job_store.job(back).published_at is None
    assert job_store.job(claimed).state == "running"


@pytest.mark.parametrize(
    ("sends", "since_published", "lost"),
    [(1, 40, True), (1, 20, False), (2, 40, False), (2, 70, True), (4, 200, False), (4, 250, True), (99, 4000, True)],
)
def test_a_lost_message_is_sent_again_at_doubling_intervals(empty_job_store, sends, since_published, lost):
    """However long the job had waited for its window before."""
    job_store = empty_job_store
    job_id = job_store.enqueue(job_store.create_account())
    job_store.update(
        job_id,
        f"run_at = now() - interval '2 hours', sends = {sends}, "
        f"published_at = now() - interval '{since_published} seconds'",
    )

    with job_store.database.connection() as connection:
        assert outbox.unpublish_lost(connection) == lost

    assert (job_store.job(job_id).published_at is None) == lost


@pytest.mark.parametrize(("broker_age", "lost"), [(3, True), (20, False), (None, False)])
def test_a_message_that_is_older_than_its_broker_is_sent_again_at_once(empty_job_store, broker_age, lost):
    job_store = empty_job_store
    job_id = job_store.enqueue(job_store.create_account())
    job_store.update(job_id, "sends = 5, published_at = now() - interval '10 seconds'")

    with job_store.database.connection() as connection:
        assert outbox.unpublish_lost(connection, broker_age) == lost

    assert (job_store.job(job_id).published_at is None) == lost


def test_messages_are_counted_until_the_job_is_claimed(empty_job_store):
    job_store = empty_job_store
    job_id = job_store.enqueue(job_store.create_account())

    def sends():
        with job_store.database.connection() as connection:
            return connection.execute("SELECT sends FROM jobs WHERE id = %s", (job_id,)).fetchone()["sends"]

    job_store.publish()
    job_store.update(job_id, "published_at = NULL")
    job_store.publish()
    assert sends() == 2
    job_store.claim(job_id)
    assert sends() == 0


def test_the_jobs_of_a_queue_whose_messages_are_lost_are_due_at_once(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    lost, other = job_store.enqueue(account), job_store.enqueue(account, kind="test.other")
    job_store.publish()

    with job_store.database.connection() as connection:
        assert outbox.unpublish_queues(connection, ["maintenance"]) == 1

    assert job_store.job(lost).published_at is None
    assert job_store.job(other).published_at is not None


def test_a_pass_reads_neither_scheduled_nor_blocked_rows(empty_job_store):
    # Given many scheduled jobs of many accounts, and many jobs behind a running one
    job_store = empty_job_store
    account = job_store.create_account()
    job_store.start(account, serial_key="thread")
    with job_store.database.connection() as connection:
        connection.execute("INSERT INTO accounts (id, name) SELECT 'acct_' || n, 'a' FROM generate_series(1, 2000) n")
        connection.execute(
            "INSERT INTO jobs (id, account_id, kind, queue, state, run_at) SELECT 'job_s' || n, 'acct_' || n,"
            " 'test.work', 'maintenance', 'scheduled', now() + interval '3 hours' FROM generate_series(1, 2000) n"
        )
        connection.execute("VACUUM ANALYZE jobs")  # before there is a queued job: statistics are never up to date
        connection.execute(
            "INSERT INTO jobs (id, account_id, kind, queue, blocked, serial_key) SELECT 'job_b' || n, %s,"
            " 'test.work', 'maintenance', true, 'thread' FROM generate_series(1, 2000) n",
            (account,),
        )
        # When a relay looks for due jobs
        rows_read = "SELECT idx_tup_fetch + seq_tup_read AS n FROM pg_stat_xact_user_tables WHERE relname = 'jobs'"
        with connection.transaction():
            before = connection.execute(rows_read).fetchone()["n"]
            for shard in range(outbox.SHARDS):
                outbox.lock_due_jobs_of_shard(connection, WINDOWS, shard, {})
            outbox.lock_due_jobs_of_lanes(connection, WINDOWS, [account])
            # Then it reads no more than the running one
            assert connection.execute(rows_read).fetchone()["n"] - before < 20


def test_a_turn_with_priority_passes_the_messages_of_others_up_to_their_threads(empty_job_store):
    # Given two threads for turns that pass others, and an account with three such turns behind another one
    job_store = empty_job_store
    account = job_store.create_account()
    windows = {**WINDOWS, "inference_priority": 2}
    standard = job_store.enqueue(account, "turn.run")
    turns = [job_store.enqueue(account, "turn.run", first=True) for _ in range(3)]

    # When they are published
    with job_store.database.transaction() as connection:
        due = outbox.lock_due_jobs_of_lanes(connection, windows, [account])
        mark_published(connection, due)

    # Then they come before it in their lane, and two of them before the other lanes' messages
    assert [(job.id, job.first) for job in due] == [
        (turns[0], True),
        (turns[1], True),
        (turns[2], False),
        (standard, False),
    ]

    # And those in flight count
    later = job_store.enqueue(other := job_store.create_account(), "turn.run", first=True)
    with job_store.database.transaction() as connection:
        assert outbox.lock_due_jobs_of_lanes(connection, windows, [other]) == [
            outbox.DueJob(later, "turn.run", "inference", 0, suspect=False, first=False)
        ]


def test_no_turn_passes_others_where_no_worker_has_threads_for_it(empty_job_store):
    job_store = empty_job_store
    turn = job_store.enqueue(account := job_store.create_account(), "turn.run", first=True)

    with job_store.database.transaction() as connection:
        (due,) = outbox.lock_due_jobs_of_lanes(connection, WINDOWS, [account])

    assert (due.id, due.first) == (turn, False)
