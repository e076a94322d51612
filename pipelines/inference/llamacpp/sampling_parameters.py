"""Write the parameters of llama.cpp's request that determine how tokens are sampled."""

from typing import Any

from pipelines.inference.engine import Sampling
from pipelines.inference.llamacpp import SAMPLING_DEFAULTS


def sampling_parameters(sampling: Sampling) -> dict[str, Any]:
    """Return the parameters. Values that are None are left to llama.cpp. Stop texts are not among them."""
    return {
        "max_tokens": sampling.max_output_tokens,
        "temperature": _or_default(sampling.temperature, SAMPLING_DEFAULTS.temperature),
        "top_p": _or_default(sampling.top_p, SAMPLING_DEFAULTS.top_p),
        "seed": sampling.seed,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "logit_bias": [list(pair) for pair in sampling.logit_bias] or None,
        "ignore_eos": sampling.ignore_eos or None,
        **_logprobs(sampling.top_logprobs),
    }


def _logprobs(alternatives: int | None) -> dict[str, Any]:
    """With 0 alternatives llama.cpp would return no log probabilities at all: the rest is left out of the result."""
    return {} if alternatives is None else {"logprobs": True, "top_logprobs": max(1, alternatives)}


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value
