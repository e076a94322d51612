"""What turns wait for: place in the queue, predicted wait and reason."""

import pytest

from models.jobs.attempts import release
from models.serving.served_models import ModelDescription, ServedModel, ServedModels
from models.serving.state import QueueState, ServingState
from models.serving.waiting_turns import WaitingTurn, read_waiting

MODEL = ServedModel("small", ModelDescription("small"), "inference")


def state(**queues):
    return ServingState(ServedModels([MODEL], MODEL), queues)


@pytest.fixture
def enqueue(empty_job_store):
    """`enqueue(account)` → the id of a new turn's job."""
    return lambda account: empty_job_store.enqueue(account, "turn.run")


@pytest.fixture
def read(empty_job_store):
    """`read(state, *job_ids)` → what the jobs wait for, by id."""

    def read(serving, *job_ids):
        with empty_job_store.database.connection() as connection:
            return read_waiting(connection, serving, job_ids)

    return read


def test_the_place_in_a_queue_counts_the_turns_of_the_lane_before(empty_job_store, enqueue, read):
    # Given a lane with three turns and another one with one, none of them published
    account, other = empty_job_store.create_account(), empty_job_store.create_account()
    turns = [enqueue(account) for _ in range(3)]
    turns.append(enqueue(other))
    # When each is asked for
    queue = QueueState(threads=1, waiting=4, running=1, mean_seconds=10, published=0, lanes=2)
    waiting = read(state(inference=queue), *turns)
    # Then the other lane's turn begins after the first ones of both
    assert [waiting[turn].position for turn in turns] == [1, 3, 5, 1]
    assert [waiting[turn].predicted_wait for turn in turns] == [10, 30, 50, 10]
    assert {turn.reason for turn in waiting.values()} == {"busy"}


def test_published_turns_are_in_the_order_of_their_messages(empty_job_store, enqueue, read):
    account = empty_job_store.create_account()
    turns = [enqueue(account) for _ in range(2)]
    empty_job_store.update(turns[1], "published_at = now() - interval '2 seconds'")
    empty_job_store.update(turns[0], "published_at = now() - interval '1 second'")

    waiting = read(state(inference=QueueState(threads=1, waiting=2, running=1, published=2)), *turns)

    assert [waiting[turn].position for turn in turns] == [2, 1]


def test_a_turn_whose_model_no_worker_serves_says_so(empty_job_store, enqueue, read):
    turn = enqueue(empty_job_store.create_account())

    assert read(state(), turn) == {turn: WaitingTurn("no_worker", 1)}


def test_a_turn_behind_another_one_of_its_conversation_has_no_place_yet(empty_job_store, enqueue, read):
    turn = enqueue(empty_job_store.create_account())
    empty_job_store.update(turn, "blocked = true")

    assert read(state(), turn) == {turn: WaitingTurn("conversation_busy")}


def test_a_turn_that_was_released_says_when_it_is_due(empty_job_store, enqueue, read):
    turn = enqueue(empty_job_store.create_account())
    job = empty_job_store.claim(turn)
    with empty_job_store.database.transaction() as connection:
        release(connection, job, delay=60)

    waiting = read(state(), turn)[turn]

    assert (waiting.reason, waiting.position) == ("retrying", None)
    assert 50 < waiting.predicted_wait <= 60


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("breaker_state = 'open', probe_at = now() + interval '1 minute'", "breaker_open"),
        ("forced_state = 'open'", "breaker_open"),
        ("saturated_until = now() + interval '1 minute'", "endpoint_saturated"),
        ("window_failures = 1", "busy"),
    ],
)
def test_a_turn_of_an_endpoint_says_why_it_is_not_asked(empty_job_store, enqueue, read, columns, reason):
    turn = enqueue(empty_job_store.create_account())
    empty_job_store.update(turn, "queue = 'upstream.groq'")
    with empty_job_store.database.connection() as connection:
        connection.execute("DELETE FROM circuit_breakers")
        connection.execute("INSERT INTO circuit_breakers (upstream) VALUES ('groq')")
        connection.execute(f"UPDATE circuit_breakers SET {columns}")

    assert read(state(**{"upstream.groq": QueueState(threads=4)}), turn)[turn].reason == reason


def test_turns_that_run_and_other_jobs_do_not_wait(empty_job_store, enqueue, read):
    account = empty_job_store.create_account()
    running, other = enqueue(account), enqueue(account)
    empty_job_store.claim(running)
    empty_job_store.update(other, "kind = 'tokens.count'")

    assert read(state(), running, other, "job_unknown") == {}
