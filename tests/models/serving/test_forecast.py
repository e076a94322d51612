"""Predict how long turns wait."""

from hypothesis import given
from hypothesis import strategies as st

from models.serving.forecast import predicted_wait, turns_ahead, wait_at_end, wait_behind
from models.serving.state import QueueState

counts = st.integers(0, 500)
queues = st.builds(
    lambda threads, published, unpublished, running, seconds, lanes: QueueState(
        threads, published + unpublished, running, seconds, published, min(lanes, unpublished)
    ),
    st.integers(1, 64), counts, counts, counts, st.floats(0.001, 600), st.integers(0, 128),
)  # fmt: skip


def test_a_free_thread_takes_a_turn_at_once():
    assert predicted_wait(QueueState(threads=4, running=3, mean_seconds=10.0)) == 0


def test_a_turn_waits_for_the_threads_to_become_free():
    # Given four threads, eight turns before the next one, and 10 seconds for each
    queue = QueueState(threads=4, running=4, waiting=4, published=4, mean_seconds=10.0)

    # Then it waits for five ends, of which four come in 10 seconds
    assert predicted_wait(queue) == 12.5


def test_a_turn_of_a_lane_without_others_passes_the_backlog_of_another_lane():
    queue = QueueState(threads=4, running=4, waiting=204, published=4, lanes=1, mean_seconds=1.0)

    assert turns_ahead(queue, own=0) == 4
    assert turns_ahead(queue, own=200) == 204


def test_the_wait_is_unknown_without_a_worker():
    assert predicted_wait(QueueState(threads=0, mean_seconds=1.0)) is None


def test_the_wait_behind_busy_threads_is_unknown_before_the_first_attempt_has_ended():
    assert predicted_wait(QueueState(threads=1, running=1)) is None
    assert predicted_wait(QueueState(threads=1, running=0)) == 0


@given(queues, counts)
def test_the_wait_is_bounded_by_that_of_the_whole_queue(queue, own):
    wait = predicted_wait(queue, own)

    assert 0 <= wait <= wait_at_end(queue)
    assert wait_at_end(queue) <= (queue.running + queue.waiting + 1) * queue.mean_seconds / queue.threads


@given(queues, counts, counts)
def test_the_wait_grows_with_the_own_turns_before_it(queue, own, more):
    assert predicted_wait(queue, own) <= predicted_wait(queue, own + more)


@given(queues, counts, st.integers(1, 64))
def test_more_threads_never_make_it_longer(queue, ahead, threads):
    wider = QueueState(queue.threads + threads, queue.waiting, queue.running, queue.mean_seconds)

    assert wait_behind(wider, ahead) <= wait_behind(queue, ahead)
