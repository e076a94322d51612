"""Choose the next token from the model's logits.

ctransformers' own sampler begins its random numbers again at each token, so that a seed draws the same number each
time. Here a number depends on the seed and the token's position: an answer that was cut between two words goes on with
the same ones, because its text has the same tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipelines.inference.ctransformers import SAMPLING_DEFAULTS
from pipelines.inference.engine import Sampling

Logits = npt.NDArray[np.float32]

#: Tokens before the next one by which penalties count, and the tokens among which it is drawn: llama.cpp's defaults.
PENALTY_WINDOW, TOP_K, MIN_P = 64, 40, 0.05


def choose(logits: Logits, sampling: Sampling, context: Sequence[int], seed: int) -> int:
    """Return the next token after the context."""
    scores = _penalised(logits, sampling, context)
    temperature = SAMPLING_DEFAULTS.temperature if sampling.temperature is None else sampling.temperature
    if temperature <= 0:
        return int(scores.argmax())
    tokens, probabilities = _candidates(scores, sampling)
    weights = np.exp(np.log(probabilities) / temperature)
    draw = np.random.default_rng((seed, len(context))).random() * weights.sum()
    return int(tokens[min(int(np.searchsorted(np.cumsum(weights), draw, side="right")), len(tokens) - 1)])


def _penalised(logits: Logits, sampling: Sampling, context: Sequence[int]) -> npt.NDArray[np.float64]:
    scores = logits.astype(np.float64)
    tokens, counts = np.unique(np.array(context[-PENALTY_WINDOW:], dtype=int), return_counts=True)
    if repetition := sampling.repetition_penalty:
        scores[tokens] = np.where(scores[tokens] > 0, scores[tokens] / repetition, scores[tokens] * repetition)
    scores[tokens] -= (sampling.presence_penalty or 0) + (sampling.frequency_penalty or 0) * counts
    for token, bias in sampling.logit_bias:
        if 0 <= token < len(scores):
            scores[token] += bias
    return scores


def _candidates(
    scores: npt.NDArray[np.float64], sampling: Sampling
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the most likely tokens, in order, and their probabilities."""
    top_k = TOP_K if sampling.top_k is None else sampling.top_k
    top_p = SAMPLING_DEFAULTS.top_p if sampling.top_p is None else sampling.top_p
    order = np.argsort(-scores, kind="stable")[: top_k if top_k > 0 else None]
    probabilities = np.exp(scores[order] - scores[order[0]])
    probabilities /= probabilities.sum()
    kept = int(np.searchsorted(np.cumsum(probabilities), top_p)) + 1
    least = probabilities[0] * (MIN_P if sampling.min_p is None else sampling.min_p)
    size = max(1, min(kept, int((probabilities >= max(least, np.finfo(float).tiny)).sum())))
    return order[:size], probabilities[:size]
