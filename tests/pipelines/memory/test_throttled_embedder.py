"""Given others who want the machine, when texts are embedded in the background, then it rests between a few of them."""

import pytest

from pipelines.memory.throttled_embedder import BUSY, LONGEST_REST, SLICE, ThrottledEmbedder


@pytest.fixture
def rests():
    return []


def embed(texts):
    assert len(texts) <= SLICE
    return [[float(text)] for text in texts]


@pytest.mark.parametrize(("share", "times"), [(BUSY, 0), (BUSY + 0.1, 3)])
def test_it_rests_between_slices_while_others_are_busy(rests, share, times):
    background = ThrottledEmbedder(embed, lambda own: share, rests.append)

    vectors = background([str(number) for number in range(2 * SLICE + 1)])

    assert vectors == [[float(number)] for number in range(2 * SLICE + 1)]
    assert len(rests) == times
    assert all(rest <= LONGEST_REST for rest in rests)


def test_it_tells_what_it_took_itself(rests):
    told = []
    background = ThrottledEmbedder(embed, lambda own: told.append(own) or 0.0, rests.append)

    background(["1"])
    background(["2"])

    assert told[0] == 0 < told[1]
