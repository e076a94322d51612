"""Move waiting turns between a local queue and an endpoint's: once, as far as they may, and within the budget."""

import threading
from dataclasses import replace
from decimal import Decimal

import pytest
from psycopg import sql

from bench.harness.waiting import wait_until
from models.jobs import outbox
from models.jobs.attempts import Ending, end
from models.jobs.cancellation import cancel
from models.jobs.outbox import DueJob, mark_published
from models.serving import moves, spill_budget
from models.serving.moves import MAX_MOVES, Candidate, Target

TARGET = Target("groq", "llama", price_input=Decimal(1), price_output=Decimal(2))
HOME, AWAY = "inference", "upstream.groq"


@pytest.fixture
def store(empty_job_store):
    """Jobs of a database of their own, since a day has one budget."""
    with empty_job_store.database.transaction() as connection:
        for table in ("spill_days", "turn_counts", "route_moves"):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    return empty_job_store


BLOCKED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))) AS blocked"


def wait_until_blocked(store, *, by):
    """Wait until another transaction waits for that of a server process."""

    def is_blocked():
        with store.database.connection() as connection:
            return connection.execute(BLOCKED, (by,)).fetchone()["blocked"]

    wait_until(is_blocked, what="another transaction waits")


def enqueue_turn(store, account, **arguments):
    return store.enqueue(account, kind="turn.run", arguments={"response_id": "resp", **arguments})


def spill(store, *job_ids, target=TARGET, cost="0.5", unfinished=0):
    with store.database.transaction() as connection:
        turns = [Candidate(job_id, Decimal(cost)) for job_id in job_ids]
        return moves.spill(connection, HOME, target, turns, "queue_full", unfinished=unfinished).job_ids


def bring_home(store, reason="endpoint_saturated", **options):
    with store.database.transaction() as connection:
        return moves.return_home(connection, "groq", reason, **options).job_ids


def day(store):
    with store.database.connection() as connection:
        row = connection.execute("SELECT spilled_turns, reserved_cost, spent_cost FROM spill_days").fetchone()
    return None if row is None else (row["spilled_turns"], row["reserved_cost"], row["spent_cost"])


def set_residency(store, account, residency):
    with store.database.connection() as connection:
        connection.execute("UPDATE accounts SET account_residency = %s WHERE id = %s", (residency, account))


def test_a_moved_turn_is_unpublished_and_says_where_it_is(store):
    # Given a published turn
    account = store.create_account()
    job_id = enqueue_turn(store, account)
    store.publish()
    before = store.job(job_id)

    # When it is moved
    assert spill(store, job_id) == [job_id]

    # Then it waits to be published in the endpoint's queue, at its place
    job = store.job(job_id)
    assert (job.queue, job.state, job.published_at, job.run_at) == (AWAY, "queued", None, before.run_at)
    route = job.arguments["route"]
    assert (route["endpoint"], route["model"], route["home"], route["reason"]) == ("groq", "llama", HOME, "queue_full")
    assert (route["moves"], route["cost"], route["price_output"]) == (1, "0.5", "2")
    assert day(store) == (1, Decimal("0.5"), 0)


def test_a_returned_turn_gives_back_its_reservation(store):
    job_id = enqueue_turn(store, store.create_account())
    spill(store, job_id)

    assert bring_home(store) == [job_id]

    job = store.job(job_id)
    assert (job.queue, job.published_at, job.arguments["route"]["endpoint"]) == (HOME, None, None)
    assert (job.arguments["route"]["reason"], job.arguments["route"]["moves"]) == ("endpoint_saturated", 2)
    assert day(store) == (0, 0, 0)
    with store.database.connection() as connection:
        assert moves.moves_by_reason(connection) == {("groq", "queue_full"): 1, ("groq", "endpoint_saturated"): 1}


def test_a_turn_that_names_the_endpoint_has_no_home(store):
    job_id = enqueue_turn(store, store.create_account())
    store.update(job_id, f"queue = '{AWAY}'")

    assert bring_home(store) == []


@pytest.mark.parametrize("change", ["state = 'running'", "queue = 'inference_batch'", "cancel_requested_at = now()",
                                    "state = 'waiting'", "crashes = 2"])  # fmt: skip
def test_only_turns_that_wait_in_the_local_queue_are_moved(store, change):
    job_id = enqueue_turn(store, store.create_account())
    store.update(job_id, change)

    assert spill(store, job_id) == []
    assert day(store) == (0, 0, 0)


@pytest.mark.parametrize(("account", "default", "argument", "leaves"), [
    (None, "any", None, True), (None, "local", None, False), ("local", "any", None, False),
    ("any", "local", None, True), (None, "any", "local", False), ("any", "any", "local", False),
])  # fmt: skip
def test_the_account_and_the_turn_decide_whether_it_leaves(store, account, default, argument, leaves):
    owner = store.create_account()
    set_residency(store, owner, account)
    job_id = enqueue_turn(store, owner, **({"residency": argument} if argument else {}))

    assert (spill(store, job_id, target=replace(TARGET, default=default)) == [job_id]) is leaves


def test_an_endpoint_in_the_network_may_answer_turns_that_stay(store):
    owner = store.create_account()
    set_residency(store, owner, "local")

    assert spill(store, enqueue_turn(store, owner, residency="local"), target=replace(TARGET, is_local=True))


def test_a_turn_that_has_to_stay_from_now_on_never_leaves_again(store):
    job_id = enqueue_turn(store, store.create_account(), route={"home": HOME, "moves": 1, "stays": True})

    assert spill(store, job_id) == []


def test_a_turn_is_moved_so_often_at_most_and_ends_at_home(store):
    job_id = enqueue_turn(store, store.create_account())

    for _ in range(MAX_MOVES):
        spill(store, job_id)
        bring_home(store)

    job = store.job(job_id)
    assert (job.queue, job.arguments["route"]["moves"]) == (HOME, MAX_MOVES)


def test_the_money_of_a_day_is_never_exceeded(store):
    # Given money for two turns
    account = store.create_account()
    turns = [enqueue_turn(store, account) for _ in range(4)]
    target = replace(TARGET, money=Decimal("1.2"))

    # When four are moved, and then once more
    assert sorted(spill(store, *turns, target=target)) == sorted(turns[:2])
    assert not spill(store, *turns[2:], target=target)

    # Then the first two are away
    assert day(store) == (2, Decimal("1.0"), 0)


def test_the_share_of_the_turns_of_a_day_is_never_exceeded(store):
    account = store.create_account()
    turns = [enqueue_turn(store, account) for _ in range(6)]
    with store.database.connection() as connection:
        spill_budget.count_ended(connection, {HOME: 3})
        spill_budget.count_ended(connection, {HOME: 1})

    # A quarter of the four that have ended and the six that wait
    moved = spill(store, *turns, target=replace(TARGET, share=0.25), unfinished=6)

    assert sorted(moved) == sorted(turns[:2])


def test_two_routers_at_once_do_not_spend_the_same_money(store):
    # Given a router that has moved a turn and not committed
    account = store.create_account()
    first, second = enqueue_turn(store, account), enqueue_turn(store, account)
    target = replace(TARGET, money=Decimal("0.6"))
    moved = []
    with store.database.transaction() as connection:
        moves.spill(connection, HOME, target, [Candidate(first, Decimal("0.5"))], "queue_full", unfinished=0)

        # When another one moves the other turn
        other = threading.Thread(target=lambda: moved.extend(spill(store, second, target=target)))
        other.start()
        wait_until_blocked(store, by=connection.info.backend_pid)
    other.join()

    # Then it finds no money left
    assert moved == []
    assert store.job(second).queue == HOME
    assert day(store) == (1, Decimal("0.5"), 0)


def test_a_turn_that_is_being_claimed_is_left_alone(store):
    job_id = enqueue_turn(store, store.create_account())
    with store.database.transaction() as connection:
        connection.execute("SELECT FROM jobs WHERE id = %s FOR NO KEY UPDATE", (job_id,))

        assert spill(store, job_id) == []


def test_a_move_that_is_not_committed_leaves_nothing_behind(store):
    job_id = enqueue_turn(store, store.create_account())
    with store.database.connection() as connection, connection.transaction(force_rollback=True):
        assert moves.spill(connection, HOME, TARGET, [Candidate(job_id)], "queue_full", unfinished=0).job_ids

    assert store.job(job_id).queue == HOME
    assert day(store) is None


def test_the_mark_of_a_message_in_the_queue_that_a_turn_has_left_has_no_effect(store):
    # Given a relay that has sent the message of a turn which moves meanwhile
    job_id = enqueue_turn(store, store.create_account())
    spill(store, job_id)

    # When it marks the job as published
    with store.database.transaction() as connection:
        mark_published(connection, [DueJob(job_id, "turn.run", HOME, 0)])

    # Then the job is still published in its new queue
    assert store.job(job_id).published_at is None
    with store.database.transaction() as connection:
        due = outbox.lock_due_jobs_of_lanes(connection, {AWAY: 4}, [store.job(job_id).account_id])
    assert [(job.id, job.queue) for job in due] == [(job_id, AWAY)]


def test_the_end_of_a_turn_settles_its_real_cost_once(store):
    job_id = enqueue_turn(store, store.create_account())
    spill(store, job_id)
    job = store.claim(job_id)

    with store.database.transaction() as connection:
        end(connection, job, Ending("completed", [], tokens=30_000, input_tokens=10_000), [])

    # 10,000 tokens at 1 and 20,000 at 2 per million
    assert day(store) == (1, 0, Decimal("0.05"))
    route = store.job(job_id).arguments["route"]
    assert "cost" not in route
    assert Decimal(route["spent"]) == Decimal("0.05")


def test_a_cancelled_turn_costs_nothing(store):
    account = store.create_account()
    job_id = enqueue_turn(store, account)
    spill(store, job_id)

    with store.database.transaction() as connection:
        cancel(connection, job_id, account)

    assert store.job(job_id).state == "cancelled"
    assert day(store) == (0, 0, 0)


def test_what_a_begun_turn_has_reserved_counts_as_spent_when_it_is_returned(store):
    job_id = enqueue_turn(store, store.create_account())
    spill(store, job_id)
    store.claim(job_id)
    store.update(job_id, "state = 'queued'")

    bring_home(store)

    assert day(store) == (1, 0, Decimal("0.5"))


def test_attempts_of_the_local_engine_before_the_move_have_spent_nothing(store):
    # Given a turn that a local engine had begun before it was moved
    job_id = enqueue_turn(store, store.create_account())
    store.claim(job_id)
    store.update(job_id, "state = 'queued'")
    spill(store, job_id)

    # When the endpoint returns it without having begun it
    bring_home(store)

    # Then all that was reserved is given back
    assert day(store) == (0, 0, 0)
    assert "attempt" not in store.job(job_id).arguments["route"]


def test_what_the_previous_version_has_not_given_back_is_corrected(store):
    # Given two moved turns, of which a version without the budget cancels one
    account = store.create_account()
    cancelled, waiting = enqueue_turn(store, account), enqueue_turn(store, account)
    spill(store, cancelled, waiting)
    store.update(cancelled, "state = 'cancelled', finished_at = now()")
    assert day(store) == (2, Decimal("1.0"), 0)

    # When the reservations are corrected, also twice
    for _ in range(2):
        with store.database.transaction() as connection:
            spill_budget.correct_reservations(connection)

    # Then only the one that waits has one
    assert day(store) == (2, Decimal("0.5"), 0)
    bring_home(store)
    assert day(store)[1] == 0
