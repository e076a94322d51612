"""Background embedding pauses between slices of texts while others keep the machine busy."""

import pytest

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
