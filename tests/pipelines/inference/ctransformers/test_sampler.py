"""Sampling from logits."""

import numpy as np
import pytest

from pipelines.inference.ctransformers.sampler import choose
from pipelines.inference.engine import Sampling

LOGITS = np.array([0.0, 3.0, 2.9, -5.0], np.float32)


def drawn(sampling: Sampling, logits: np.ndarray = LOGITS, context: tuple[int, ...] = ()) -> set[int]:  # type: ignore[type-arg]
    return {choose(logits, sampling, context, seed) for seed in range(300)}


def test_a_temperature_of_0_takes_the_most_likely_token() -> None:
    assert drawn(Sampling(8, temperature=0)) == {1}


def test_a_high_temperature_draws_every_token_that_is_likely_enough() -> None:
    assert drawn(Sampling(8, temperature=0.2, top_p=1, min_p=0)) == {1, 2}
    assert drawn(Sampling(8, temperature=20, top_p=1, min_p=0)) == {0, 1, 2, 3}


@pytest.mark.parametrize("limit", [{"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.5}])
def test_each_limit_leaves_out_unlikely_tokens(limit: dict[str, float]) -> None:
    assert drawn(Sampling(8, temperature=20, **{"top_p": 1, "min_p": 0, **limit})) == {1, 2}  # type: ignore[arg-type]


def test_penalties_lower_tokens_of_the_text() -> None:
    for penalty in ({"presence_penalty": 1.0}, {"frequency_penalty": 0.5}, {"repetition_penalty": 1.5}):
        assert drawn(Sampling(8, temperature=0, **penalty), context=(1, 1)) == {2}


def test_a_bias_is_added_and_unknown_tokens_are_ignored() -> None:
    assert drawn(Sampling(8, temperature=0, logit_bias=((3, 100.0), (99, 100.0)))) == {3}


def test_a_number_depends_on_the_seed_and_the_position() -> None:
    sampling, logits = Sampling(8, temperature=1, top_p=1, min_p=0), np.zeros(1000, np.float32)

    def answer(seed: int) -> list[int]:
        context: list[int] = []
        for _ in range(8):
            context.append(choose(logits, Sampling(8, temperature=1, top_k=0, min_p=0), context, seed))
        return context

    assert answer(5) == answer(5) != answer(6)
    assert len(set(answer(5))) > 4
    assert choose(logits, sampling, [1], 5) == choose(logits, sampling, [1], 5)
