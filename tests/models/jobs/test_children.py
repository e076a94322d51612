"""Children of a job: insert, adopt, wait and wake."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb

from bench.harness.waiting import wait_until
from models.jobs import attempts
from models.jobs.attempts import Ending
from models.jobs.budgets import BudgetLimits, open_budget
from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob, children
from models.jobs.serial_keys import lock_serial_key
from models.journal.events import event
from models.platform.errors import Fenced, InsufficientQuota, PermanentFailure


def wait(job_store, parent, new_jobs, **options):
    with job_store.database.transaction() as connection:
        wait_for_children(connection, parent, new_jobs, **options)


def finish(job_store, job_id, state="completed"):
    job = job_store.claim(job_id)
    with job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending(state, []), [])


def test_children_are_returned_in_the_order_of_their_creation(job_store, account):
    parent = job_store.start(account)
    new_jobs = [NewJob("test.work", account, {"n": n}) for n in range(5)]

    with job_store.database.transaction() as connection:
        wait_for_children(connection, parent, new_jobs)

    with job_store.database.connection() as connection:
        assert [child.arguments["n"] for child in children(connection, parent.id)] == [0, 1, 2, 3, 4]
    assert (job_store.job(parent.id).state, job_store.job(parent.id).pending_children) == ("waiting", 5)


def test_a_cancelled_job_enqueues_no_children(job_store, account):
    parent = job_store.start(account)
    job_store.update(parent.id, "cancel_requested_at = now()")

    with pytest.raises(Fenced), job_store.database.transaction() as connection:
        wait_for_children(connection, parent, [NewJob("test.work", account)])

    with job_store.database.connection() as connection:
        assert children(connection, parent.id) == []


def test_a_child_belongs_to_the_tree_of_its_parent(job_store, account):
    root = job_store.start(account)
    child, grandchild = NewJob("test.work", account), NewJob("test.work", account)
    wait(job_store, root, [child])
    wait(job_store, job_store.claim(child.id), [grandchild])

    assert (job_store.job(child.id).root_id, job_store.job(child.id).depth) == (root.id, 1)
    assert (job_store.job(grandchild.id).root_id, job_store.job(grandchild.id).depth) == (root.id, 2)


def test_a_child_with_the_serial_key_of_its_parent_is_rejected(job_store, account):
    parent = job_store.start(account, serial_key="thread")

    with pytest.raises(PermanentFailure, match="serial key") as caught:
        wait(job_store, parent, [NewJob("test.work", account, serial_key="thread")])
    assert caught.value.code == "serial_key_held"


def test_a_child_with_the_serial_key_of_a_job_further_above_is_rejected_until_that_has_ended(job_store, account):
    """It would wait for a job that waits for it."""
    # Given a tree of three, whose root has a serial key
    key, child, grandchild = f"thread {account}", NewJob("test.work", account), NewJob("test.work", account)
    root = job_store.start(account, serial_key=key)
    wait(job_store, root, [child])
    wait(job_store, job_store.claim(child.id), [grandchild])
    running = job_store.claim(grandchild.id)
    # When a job below it begins to wait for a child with that key
    with pytest.raises(PermanentFailure, match=f"{root.id} has its serial key"):
        wait(job_store, running, [NewJob("test.work", account, serial_key=key)])
    # Then it may do so once the root has ended
    job_store.update(root.id, "state = 'completed', finished_at = now()")
    wait(job_store, running, [NewJob("test.work", account, serial_key=key)])
    assert job_store.job(running.id).state == "waiting"


@pytest.mark.parametrize(
    ("join_rule", "endings", "woken"),
    [
        ("all", ["completed", "completed"], [False, True]),
        ("all", ["failed", "completed"], [False, True]),
        ("any", ["failed", "completed", "completed"], [False, True]),
        ("any", ["failed", "failed"], [False, True]),
        ("fail_fast", ["completed", "failed", "completed"], [False, True]),
        ("fail_fast", ["completed", "completed"], [False, True]),
    ],
)
def test_the_join_rule_decides_when_the_parent_continues(job_store, account, join_rule, endings, woken):
    # Given a parent that waits for its children
    parent = job_store.start(account)
    new_jobs = [NewJob("test.work", account) for _ in endings]
    wait(job_store, parent, new_jobs, join_rule=join_rule)
    # When they end one after another
    continued = []
    for child, ending in zip(new_jobs, endings, strict=True):
        finish(job_store, child.id, ending)
        continued.append(job_store.job(parent.id).state == "queued")
    # Then it continues with the one that decides
    assert continued[: len(woken)] == woken


def test_a_parent_waits_at_most_for_its_time_limit(job_store, account):
    parent = job_store.start(account)

    wait(job_store, parent, [NewJob("test.work", account)], timeout=60)

    assert job_store.job(parent.id).wait_until is not None


@pytest.mark.parametrize("ended", [False, True])
def test_an_existing_job_with_the_unique_key_of_a_child_is_adopted(job_store, account, ended):
    # Given a job that has the unique key of a child
    key = f"once {account}"
    existing = job_store.enqueue(account, unique_key=key)
    if ended:
        finish(job_store, existing)
    parent = job_store.start(account)
    # When its parent waits for it
    wait(job_store, parent, [NewJob("test.work", account, unique_key=key, opening=[event(0, "test.said", {})])])
    # Then it is waited for unless it has ended, and is the only child
    waiting = job_store.job(parent.id)
    assert (waiting.state, waiting.pending_children) == (("queued", 0) if ended else ("waiting", 1))
    with job_store.database.connection() as connection:
        assert [child.id for child in children(connection, parent.id)] == [existing]
    if not ended:
        finish(job_store, existing)
        assert job_store.job(parent.id).state == "queued"


def test_a_parent_that_waits_again_for_the_same_child_finds_it(job_store, account):
    """Its worker died after the commit, or it was woken early."""
    child = NewJob("test.work", account, unique_key=f"once {account}")
    parent = job_store.start(account)
    wait(job_store, parent, [child], timeout=0.001)
    job_store.update(parent.id, "state = 'queued', run_at = now()")
    again = job_store.claim(parent.id, "m2")

    wait(job_store, again, [NewJob("test.work", account, unique_key=f"once {account}")])

    assert (job_store.job(parent.id).state, job_store.job(parent.id).pending_children) == ("waiting", 1)


def test_a_child_of_another_parent_is_not_adopted(job_store, account):
    key = f"once {account}"
    wait(job_store, job_store.start(account), [NewJob("test.work", account, unique_key=key)])

    with pytest.raises(PermanentFailure, match="another parent"):
        wait(job_store, job_store.start(account), [NewJob("test.work", account, unique_key=key)])


def test_a_job_of_another_account_is_not_adopted(job_store, account):
    key = f"once {account}"
    existing = job_store.enqueue(job_store.create_account(), unique_key=key)

    with pytest.raises(PermanentFailure, match="cannot be a child"):
        wait(job_store, job_store.start(account), [NewJob("test.work", account, unique_key=key)])

    assert job_store.job(existing).parent_id is None


def test_the_descendants_of_an_adopted_job_belong_to_the_tree_of_its_parent(job_store, account):
    # Given a tree of three, whose last job runs and whose root has a unique key
    key = f"once {account}"
    existing = job_store.start(account, unique_key=key)
    child, grandchild, later = (NewJob("test.work", account) for _ in range(3))
    wait(job_store, existing, [child])
    wait(job_store, job_store.claim(child.id), [grandchild])
    running = job_store.claim(grandchild.id)
    # When a child of another tree's root waits for it, and then the running job for a child of its own
    root, parent = job_store.start(account), NewJob("test.work", account)
    wait(job_store, root, [parent])
    wait(job_store, job_store.claim(parent.id), [NewJob("test.work", account, unique_key=key)])
    wait(job_store, running, [later])
    # Then all of them belong to that tree
    rows = [job_store.job(job_id) for job_id in (existing.id, child.id, grandchild.id, later.id)]
    assert [(row.root_id, row.depth) for row in rows] == [(root.id, depth) for depth in (2, 3, 4, 5)]
    assert rows[0].parent_id == parent.id


@pytest.mark.parametrize("ended", [False, True])
def test_a_job_with_a_budget_is_adopted_only_if_it_has_ended(job_store, account, ended):
    """A job has one budget."""
    key = f"once {account}"
    existing = job_store.start(account, unique_key=key)
    with job_store.database.connection() as connection:
        open_budget(connection, existing.id, account, BudgetLimits(tokens=10))
        if ended:
            attempts.end(connection, existing, Ending("completed", []), [])
    parent, child = job_store.start(account), NewJob("test.work", account, unique_key=key)

    if ended:
        wait(job_store, parent, [child])
    else:
        with pytest.raises(PermanentFailure, match="cannot be a child"):
            wait(job_store, parent, [child])

    assert job_store.job(existing.id).parent_id == (parent.id if ended else None)


def test_a_job_is_not_adopted_while_one_below_it_has_the_serial_key_of_one_above(job_store, account):
    """They would wait for each other."""
    # Given a tree whose root has a serial key, and a job with a unique key and a child behind that root
    key, serial_key = f"once {account}", f"thread {account}"
    root, parent = job_store.start(account, serial_key=serial_key), NewJob("test.work", account)
    wait(job_store, root, [parent])
    below = NewJob("test.work", account, serial_key=serial_key)
    existing = job_store.start(account, unique_key=key)
    wait(job_store, existing, [below])
    # When a job below the root waits for it
    with pytest.raises(PermanentFailure, match="cannot be a child"):
        wait(job_store, job_store.claim(parent.id), [NewJob("test.work", account, unique_key=key)])
    # Then it stays where it is
    assert (job_store.job(existing.id).parent_id, job_store.job(below.id).root_id) == (None, existing.id)


def test_of_two_parents_that_adopt_a_job_at_once_one_is_refused(job_store, account):
    # Given a job with a unique key and a child
    key, below = f"once {account}", NewJob("test.work", account)
    existing = job_store.start(account, unique_key=key)
    wait(job_store, existing, [below])
    first, second = job_store.start(account), job_store.start(account)
    # When a second parent begins to wait for it before the first one's transaction has ended
    with ThreadPoolExecutor(1) as thread:
        with job_store.database.transaction() as connection:
            wait_for_children(connection, first, [NewJob("test.work", account, unique_key=key)])
            other = thread.submit(wait, job_store, second, [NewJob("test.work", account, unique_key=key)])
            blocked = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            pid = connection.info.backend_pid
            wait_until(lambda: connection.execute(blocked, (pid,)).fetchone() is not None)
        # Then it is refused, and the tree of the job is the first one's
        with pytest.raises(PermanentFailure, match="another parent"):
            other.result()
    rows = [job_store.job(existing.id), job_store.job(below.id)]
    assert [row.root_id for row in rows] == [first.id, first.id]
    assert rows[0].parent_id == first.id


def test_a_job_above_the_parent_is_not_adopted(job_store, account):
    """They would wait for each other."""
    key = f"once {account}"
    root, child = job_store.start(account, unique_key=key), NewJob("test.work", account)
    wait(job_store, root, [child])

    with pytest.raises(PermanentFailure, match="cannot be a child"):
        wait(job_store, job_store.claim(child.id), [NewJob("test.work", account, unique_key=key)])


@pytest.mark.parametrize("ended", [False, True])
def test_a_job_with_the_serial_key_of_the_parent_is_adopted_only_if_it_has_ended(job_store, account, ended):
    """Otherwise they would wait for each other."""
    # Given a job with a unique key that ended before its neighbour, or waits behind it
    key = f"once {account}"
    options = {"serial_key": f"thread {account}"}
    existing = job_store.enqueue(account, unique_key=key, **options) if ended else None
    if existing:
        finish(job_store, existing)
    parent = job_store.start(account, **options)
    if not ended:
        job_store.enqueue(account, unique_key=key, **options)
    # When the neighbour waits for it
    if ended:
        wait(job_store, parent, [NewJob("test.work", account, unique_key=key)])
    else:
        with pytest.raises(PermanentFailure, match="cannot be a child"):
            wait(job_store, parent, [NewJob("test.work", account, unique_key=key)])
    # Then it continues if the job has ended
    assert job_store.job(parent.id).state == ("queued" if ended else "running")


def test_a_child_that_ends_while_its_parent_begins_to_wait_is_not_waited_for(job_store, account):
    # Given a parent that runs beside a child of an earlier wait
    child = NewJob("test.work", account)
    parent = job_store.start(account)
    wait(job_store, parent, [child], timeout=0.001)
    job_store.update(parent.id, "state = 'queued', run_at = now()")
    parent, running = job_store.claim(parent.id, "m2"), job_store.claim(child.id)
    began = threading.Event()

    def wait_again():
        began.set()
        wait(job_store, parent, [])

    # When the child's end commits while the parent begins to wait
    waiting = threading.Thread(target=wait_again)
    with job_store.database.transaction() as connection:
        attempts.end(connection, running, Ending("completed", []), [])
        waiting.start()
        assert began.wait(20)
        blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: connection.execute(blocked).fetchone() is not None)
    waiting.join(20)
    # Then the parent continues
    assert job_store.job(parent.id).state == "queued"


def test_of_two_jobs_whose_children_take_the_rest_of_the_month_one_is_refused(job_store, account):
    # Given an account with 100 tokens a month, and two jobs whose children reserve 60 each
    with job_store.database.connection() as connection:
        limits = Jsonb({"tokens_per_month": 100})
        connection.execute("UPDATE accounts SET limits = %s WHERE id = %s", (limits, account))
    first, second = job_store.start(account), job_store.start(account)

    def wait_within_month(connection, parent):
        child = NewJob("test.work", account, reserved_tokens=60)
        wait_for_children(connection, parent, [child], within_month=True)

    def wait_of_second():
        with job_store.database.transaction() as connection:
            wait_within_month(connection, second)

    # When both enqueue them at once
    with ThreadPoolExecutor(1) as thread:
        with job_store.database.transaction() as connection:
            wait_within_month(connection, first)
            other = thread.submit(wait_of_second)
            blocked = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            pid = connection.info.backend_pid
            wait_until(lambda: connection.execute(blocked, (pid,)).fetchone() is not None)
        # Then the second one is refused
        with pytest.raises(InsufficientQuota, match="60 are reserved"):
            other.result()
    assert [job_store.job(job.id).state for job in (first, second)] == ["waiting", "running"]


def test_children_may_reserve_more_than_the_month_has_left_unless_that_is_checked(job_store, account):
    """In a tree with a budget the root has reserved for them."""
    with job_store.database.connection() as connection:
        limits = Jsonb({"tokens_per_month": 100})
        connection.execute("UPDATE accounts SET limits = %s WHERE id = %s", (limits, account))
    parent = job_store.start(account, reserved_tokens=90)

    wait(job_store, parent, [NewJob("test.work", account, reserved_tokens=60)])

    assert job_store.job(parent.id).state == "waiting"


def test_a_parent_that_waits_again_while_a_child_with_the_same_serial_key_ends_does_not_deadlock(job_store, account):
    # Given a parent that runs again beside a child with a serial key
    key, child = f"leaf {account}", NewJob("test.work", account, serial_key=f"leaf {account}")
    parent = job_store.start(account)
    wait(job_store, parent, [child], timeout=0.001)
    job_store.update(parent.id, "state = 'queued', run_at = now()")
    parent, running = job_store.claim(parent.id, "m2"), job_store.claim(child.id)
    another = NewJob("test.work", account, serial_key=key)
    # When it waits for another child with that key while the first one ends
    with ThreadPoolExecutor(1) as thread:
        with job_store.database.transaction() as connection:
            lock_serial_key(connection, key)  # the first statement of the end
            other = thread.submit(wait, job_store, parent, [another])
            blocked = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            pid = connection.info.backend_pid
            wait_until(lambda: connection.execute(blocked, (pid,)).fetchone() is not None)
            attempts.end(connection, running, Ending("completed", []), [])
        other.result()
    # Then both have done so
    assert (job_store.job(parent.id).state, job_store.job(child.id).state) == ("waiting", "completed")
    assert not job_store.job(another.id).blocked
