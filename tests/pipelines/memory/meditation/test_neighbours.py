"""All pairs of near vectors are found, block by block."""

import numpy as np
import pytest

from pipelines.memory.meditation.neighbours import _near, near_pairs


def test_blockwise_pairs_equal_those_of_one_product(monkeypatch):
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.ROWS", 7)
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.COLUMNS", 11)
    random = np.random.default_rng(5).standard_normal((60, 8))
    vectors = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float16)

    found, cosines = near_pairs(vectors, least=0.4, most=100)
    few, _ = near_pairs(vectors, least=0.4, most=2)

    exact = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if exact[i, j] >= 0.4}
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert all(abs(exact[i, j] - cosine) < 1e-5 for (i, j), cosine in zip(found.tolist(), cosines, strict=True))
    assert max(np.bincount(few[:, 0])) == 2


@pytest.mark.parametrize("columns", [20, 100])
def test_only_the_nearest_pairs_are_kept_among_many_near_ones(monkeypatch, columns):
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.ROWS", 7)
    monkeypatch.setattr("pipelines.memory.meditation.neighbours.COLUMNS", columns)
    random = 1 + np.random.default_rng(5).standard_normal((60, 8))[np.arange(60) % 40] * 0.1
    vectors = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float16)

    found, _ = near_pairs(vectors, least=0.4, most=3)

    exact = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    nearest = {i: sorted(range(i + 1, 60), key=lambda j, i=i: (-exact[i, j], j))[:3] for i in range(60)}
    assert sorted(tuple(pair) for pair in found.tolist()) == [(i, j) for i in range(60) for j in sorted(nearest[i])]
    assert np.count_nonzero(_near(exact, 0.4, 3)) == 60 * 3
