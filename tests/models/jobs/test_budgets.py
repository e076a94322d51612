"""The limits of a tree of jobs."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from models.jobs import attempts, job_deletion, jobs
from models.jobs.attempts import Ending
from models.jobs.budgets import BudgetLimits, Draw, Remaining, draw, open_budget, remaining, settle
from models.jobs.cancellation import cancel_all
from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob, enqueue
from models.platform.errors import BudgetExhausted, SanghaError


@pytest.fixture
def open_tree(database, account, kinds):
    """`open_tree(limits)` → the id of a new root with a budget."""

    def open_tree(limits):
        root = NewJob("test.work", account)
        with database.transaction() as connection:
            enqueue(connection, root)
            open_budget(connection, root.id, account, limits)
        return root.id

    return open_tree


def amounts_left(database, root_id):
    with database.connection() as connection:
        return remaining(connection, root_id)


def test_draws_reduce_what_remains(database, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100, money=Decimal("1.5"), calls=3, depth=2))

    with database.connection() as connection:
        draw(connection, root_id, tokens=40, money=Decimal("0.0000001"), calls=1, depth=2)

    assert amounts_left(database, root_id) == Remaining(tokens=60, money=Decimal("1.4999999"), calls=2, depth=2)


@pytest.mark.parametrize(
    ("amounts", "reason"),
    [
        ({"tokens": 61}, "the limit of tokens is 100, 40 are used, 61 were requested"),
        ({"money": Decimal("1E+1")}, "the limit of money is 1.5, 0.5 are used, 10 were requested"),
        ({"calls": 3}, "the limit of calls is 3, 1 are used, 3 were requested"),
        ({"depth": 3}, "the limit of depth is 2, and this job's depth is 3"),
    ],
)
def test_a_draw_above_a_limit_takes_nothing_and_names_the_limit(database, open_tree, amounts, reason):
    # Given a tree that has drawn of everything
    root_id = open_tree(BudgetLimits(tokens=100, money=Decimal("1.5"), calls=3, depth=2))
    with database.connection() as connection:
        draw(connection, root_id, tokens=40, money=Decimal("0.5"), calls=1)
    before = amounts_left(database, root_id)

    # When a job draws too much of one and little of the others
    with database.connection() as connection, pytest.raises(BudgetExhausted) as caught:
        draw(connection, root_id, **{"tokens": 1, "calls": 1, **amounts})

    # Then nothing is drawn
    assert caught.value.message == f"The budget of {root_id} is exhausted: {reason}."
    assert caught.value.code == "budget_exhausted"
    assert amounts_left(database, root_id) == before


def test_a_limit_can_be_used_up(database, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100, calls=1))

    with database.connection() as connection:
        draw(connection, root_id, tokens=100, calls=1)

    assert amounts_left(database, root_id) == Remaining(tokens=0, calls=0)


def test_a_tree_without_a_budget_has_no_limits(job_store, account):
    root_id = job_store.enqueue(account)

    with job_store.database.connection() as connection:
        draw(connection, root_id, tokens=10**15, money=Decimal(10**9), calls=10**6, depth=50)
        settle(connection, root_id, tokens=10)
        assert remaining(connection, root_id) is None


def test_an_absent_limit_is_no_limit(database, open_tree):
    root_id = open_tree(BudgetLimits(calls=5))

    with database.connection() as connection:
        draw(connection, root_id, tokens=10**15, money=Decimal(10**9), calls=1, depth=50)

    assert amounts_left(database, root_id) == Remaining(calls=4)


def test_what_was_not_used_can_be_drawn_again(database, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100, money=Decimal(1)))
    with database.connection() as connection:
        draw(connection, root_id, tokens=100, money=Decimal(1))
        settle(connection, root_id, tokens=70, money=Decimal("0.25"))

        draw(connection, root_id, tokens=70, money=Decimal("0.25"))

    assert amounts_left(database, root_id) == Remaining(tokens=0, money=Decimal(0))


def test_more_than_was_drawn_counts_and_stops_later_draws(database, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100, money=Decimal(1)))
    with database.connection() as connection:
        draw(connection, root_id, tokens=100, money=Decimal(1))
        settle(connection, root_id, tokens=-20, money=Decimal("-0.5"))
        left = remaining(connection, root_id)
        assert left == Remaining(tokens=0, money=Decimal(0))
        draw(connection, root_id, tokens=left.tokens, money=left.money)

        settle(connection, root_id, tokens=10)
        with pytest.raises(BudgetExhausted, match="100, 110 are used, 1 were requested"):
            draw(connection, root_id, tokens=1)


def test_a_draw_after_the_deadline_of_the_root_is_refused(database, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100))
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET deadline_at = '2026-01-02 03:04:05Z' WHERE id = %s", (root_id,))

        with pytest.raises(BudgetExhausted, match=r"its deadline passed at 2026-01-02 "):
            draw(connection, root_id, tokens=1)
        assert remaining(connection, root_id).deadline_at is not None


def test_a_draw_is_rolled_back_with_its_transaction(database, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100))

    def fail():
        with database.transaction() as connection:
            draw(connection, root_id, tokens=100)
            raise SanghaError

    with pytest.raises(SanghaError):
        fail()

    assert amounts_left(database, root_id) == Remaining(tokens=100)


@pytest.mark.parametrize("amounts", [{"tokens": -1}, {"money": Decimal("NaN")}, {"money": Decimal("-0.1")}])
def test_a_draw_of_less_than_nothing_is_refused(database, open_tree, amounts):
    root_id = open_tree(BudgetLimits())

    with database.connection() as connection, pytest.raises(ValueError, match="amount"):
        draw(connection, root_id, **amounts)


def test_the_budget_of_a_deleted_job_is_deleted(database, account, open_tree):
    root_id = open_tree(BudgetLimits(tokens=1))
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = %s", (root_id,))

        assert job_deletion.delete_ended(connection, root_id, account)

        assert remaining(connection, root_id) is None


def test_concurrent_draws_never_exceed_a_limit(database, open_tree):
    # Given a tree whose limits allow ten of forty draws
    root_id = open_tree(BudgetLimits(tokens=1000, calls=10))

    def draw_once(tokens):
        try:
            with database.transaction() as connection:
                draw(connection, root_id, tokens=tokens, calls=1)
        except BudgetExhausted:
            return 0
        return tokens

    # When six threads draw
    with ThreadPoolExecutor(6) as threads:
        drawn = [tokens for tokens in threads.map(draw_once, [95, 100, 105, 98] * 10) if tokens]

    # Then as many succeed as fit, and what is used is what they drew
    left = amounts_left(database, root_id)
    assert left.tokens == 1000 - sum(drawn)
    assert left.calls == 10 - len(drawn)
    assert left.calls == 0 or left.tokens < 105


def test_a_draw_waits_for_a_concurrent_one_and_then_sees_it(database, open_tree):
    # Given an uncommitted draw of everything
    root_id = open_tree(BudgetLimits(calls=1))
    with ThreadPoolExecutor(1) as thread:
        with database.transaction() as connection:
            draw(connection, root_id, calls=1)

            # When another job draws in the meantime
            other = thread.submit(draw_in_transaction, database, root_id, calls=1)
            wait_until_blocked(database, by=connection.info.backend_pid)

        # Then it is refused after the commit
        with pytest.raises(BudgetExhausted):
            other.result()


def test_a_job_and_its_child_that_end_at_once_do_not_wait_for_each_other(job_store, account, open_tree):
    # Given a running root with a running child, both of which have drawn
    database, root_id = job_store.database, open_tree(BudgetLimits(tokens=100))
    root = job_store.claim(root_id)
    child = NewJob("test.work", account)
    with database.transaction() as connection:
        enqueue(connection, child, parent=root)
        draw(connection, root_id, tokens=100)
    child = job_store.claim(child.id)

    # When the root settles after its child has begun to wait for the root's row
    with ThreadPoolExecutor(1) as thread, database.transaction() as connection:

        def settle_root(connection):
            ending = Ending("completed", [], settle=lambda connection: settle(connection, root_id, tokens=10))
            ended.append(thread.submit(end_in_transaction, database, child, ending))
            wait_until_blocked(database, by=connection.info.backend_pid)
            settle(connection, root_id, tokens=20)

        ended = []
        attempts.end(connection, root, Ending("completed", [], settle=settle_root), [])

    # Then both end
    ended[0].result()
    assert amounts_left(database, root_id) == Remaining(tokens=30)


@pytest.fixture
def waiting_tree(job_store, account, open_tree):
    """`waiting_tree(count, draw)` → the id of a root with a budget that waits for children, and their ids."""

    def waiting_tree(count, draw):
        root_id = open_tree(BudgetLimits(tokens=100, money=Decimal(2), calls=9, depth=1))
        children = [NewJob("test.work", account, draw=draw) for _ in range(count)]
        with job_store.database.transaction() as connection:
            wait_for_children(connection, job_store.claim(root_id), children)
        return root_id, [child.id for child in children]

    return waiting_tree


def test_children_draw_when_they_are_enqueued(database, waiting_tree):
    root_id, _ = waiting_tree(2, Draw(tokens=30, money=Decimal("0.5"), calls=1))

    assert amounts_left(database, root_id) == Remaining(tokens=40, money=Decimal(1), calls=7, depth=1)


def test_children_that_would_draw_too_much_are_not_enqueued(job_store, account, open_tree):
    root_id = open_tree(BudgetLimits(tokens=100))
    root = job_store.claim(root_id)
    children = [NewJob("test.work", account, draw=Draw(tokens=60)) for _ in range(2)]

    with pytest.raises(BudgetExhausted), job_store.database.transaction() as connection:
        wait_for_children(connection, root, children)

    with job_store.database.connection() as connection:
        assert jobs.children(connection, root_id) == []
    assert amounts_left(job_store.database, root_id) == Remaining(tokens=100)


def test_a_job_that_exists_draws_nothing_when_it_becomes_a_child(job_store, account, open_tree):
    root_id, key = open_tree(BudgetLimits(tokens=100)), f"once {account}"
    job_store.enqueue(account, unique_key=key)

    with job_store.database.transaction() as connection:
        child = NewJob("test.work", account, unique_key=key, draw=Draw(tokens=60))
        wait_for_children(connection, job_store.claim(root_id), [child])

    assert amounts_left(job_store.database, root_id) == Remaining(tokens=100)


@pytest.mark.parametrize("cancelled", ["the children", "the root", "the waiting parent's parent"])
def test_children_that_are_cancelled_before_their_first_attempt_give_back_what_they_drew(
    job_store, account, waiting_tree, cancelled
):
    # Given a tree with two children that have not run, one of which is scheduled
    root_id, children = waiting_tree(2, Draw(tokens=30, money=Decimal("0.5"), calls=1))
    job_store.update(children[0], "state = 'scheduled', run_at = now() + interval '1 hour'")
    above = job_store.start(account)
    if cancelled == "the waiting parent's parent":
        job_store.update(root_id, f"parent_id = '{above.id}'")
    ids = {"the children": children, "the root": [root_id]}.get(cancelled, [above.id])

    # When they are cancelled, twice
    for _ in range(2):
        with job_store.database.transaction() as connection:
            cancel_all(connection, ids, account)

    # Then the tree may draw everything again
    assert [job_store.job(child).state for child in children] == ["cancelled", "cancelled"]
    assert amounts_left(job_store.database, root_id) == Remaining(tokens=100, money=Decimal(2), calls=9, depth=1)


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "dead"])
def test_a_child_whose_ending_does_not_settle_gives_back_its_draw_but_for_its_tokens(job_store, waiting_tree, state):
    root_id, [child] = waiting_tree(1, Draw(tokens=30, calls=1))

    end_in_transaction(job_store.database, job_store.claim(child), Ending(state, [], tokens=12))

    assert amounts_left(job_store.database, root_id) == Remaining(tokens=88, money=Decimal(2), calls=9, depth=1)


def test_a_draw_is_settled_with_the_tree_from_which_it_was_drawn(job_store, account, waiting_tree):
    """The job may have been moved to another tree since."""
    root_id, [child] = waiting_tree(1, Draw(tokens=30))
    other_id, _ = waiting_tree(1, Draw(tokens=50))
    job_store.update(child, f"root_id = '{other_id}'")

    end_in_transaction(job_store.database, job_store.claim(child), Ending("completed", []))

    assert [amounts_left(job_store.database, each).tokens for each in (root_id, other_id)] == [100, 50]


def test_only_a_child_has_a_draw(job_store, account):
    with pytest.raises(ValueError, match="no parent"):
        job_store.enqueue(account, draw=Draw(tokens=1))


def end_in_transaction(database, job, ending):
    with database.transaction() as connection:
        attempts.end(connection, job, ending, [])


def draw_in_transaction(database, root_id, **amounts):
    with database.transaction() as connection:
        draw(connection, root_id, **amounts)


def wait_until_blocked(database, *, by):
    """Wait until another session waits for a lock of the session `by`."""
    query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %(pid)s = ANY(pg_blocking_pids(pid))) AS blocked"
    with database.connection() as connection:
        while not connection.execute(query, {"pid": by}).fetchone()["blocked"]:
            pass
