"""Background embedding pauses between slices of texts while others keep the machine busy."""

import threading

import pytest

from bench.harness.waiting import wait_until
from pipelines.memory.throttled_embedder import BUSY_SHARE, MAX_PAUSE, SLICE_TEXTS, ThrottledEmbedder


@pytest.fixture
def pauses():
    return []


def embed(texts):
    assert len(texts) <= SLICE_TEXTS
    return [[float(text)] for text in texts]


@pytest.mark.parametrize(("share", "count"), [(BUSY_SHARE, 0), (BUSY_SHARE + 0.1, 3)])
def test_embedder_pauses_between_slices_while_others_are_busy(pauses, share, count):
    background = ThrottledEmbedder(embed, lambda own: share, pauses.append)

    vectors = background([str(number) for number in range(2 * SLICE_TEXTS + 1)])

    assert vectors == [[float(number)] for number in range(2 * SLICE_TEXTS + 1)]
    assert len(pauses) == count
    assert all(pause <= MAX_PAUSE for pause in pauses)


def test_own_time_of_the_last_slice_is_passed_to_the_load_measurement(pauses):
    own_seconds = []
    background = ThrottledEmbedder(embed, lambda own: own_seconds.append(own) or 0.0, pauses.append)

    background(["1"])
    background(["2"])

    assert own_seconds[0] == 0 < own_seconds[1]


def test_a_job_with_few_texts_has_its_turn_between_the_slices_of_a_long_one():
    # Given a long job whose first slice is being embedded
    order, threads = [], []

    def embed_in_order(texts):
        order.append(texts[0])
        if order == ["long 0"]:  # another job arrives
            threads.append(threading.Thread(target=background, args=[["short"]]))
            threads[0].start()
            wait_until(lambda: background._lock.waiting)
        return [[0.0] for _ in texts]

    background = ThrottledEmbedder(embed_in_order, lambda own: 0.0)

    background([f"long {number}" for number in range(4 * SLICE_TEXTS)])
    threads[0].join()

    assert order[:3] == ["long 0", "short", f"long {SLICE_TEXTS}"]
    assert len(order) == 5
