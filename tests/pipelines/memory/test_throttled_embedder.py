"""Given others who want the machine, when texts are embedded in the background, then it rests between a few of them."""

import pytest

from pipelines.memory.throttled_embedder import BUSY_SHARE, MAX_PAUSE, SLICE_TEXTS, ThrottledEmbedder


@pytest.fixture
def rests():
    return []


def embed(texts):
    assert len(texts) <= SLICE_TEXTS
    return [[float(text)] for text in texts]


@pytest.mark.parametrize(("share", "times"), [(BUSY_SHARE, 0), (BUSY_SHARE + 0.1, 3)])
def test_it_rests_between_slices_while_others_are_busy(rests, share, times):
    background = ThrottledEmbedder(embed, lambda own: share, rests.append)

    vectors = background([str(number) for number in range(2 * SLICE_TEXTS + 1)])

    assert vectors == [[float(number)] for number in range(2 * SLICE_TEXTS + 1)]
    assert len(rests) == times
    assert all(rest <= MAX_PAUSE for rest in rests)


def test_it_tells_what_it_took_itself(rests):
    told = []
    background = ThrottledEmbedder(embed, lambda own: told.append(own) or 0.0, rests.append)

    background(["1"])
    background(["2"])

    assert told[0] == 0 < told[1]
