"""ctransformers in the worker's process: `SANGHA_ENGINE=ctransformers`, with the extra `sangha[ctransformers]`.

It contains the llama.cpp of September 2023: it loads Llama models with a SentencePiece vocabulary, such as Llama 2,
TinyLlama and Mistral 7B, and nothing newer.
"""

from pathlib import Path

from models.platform.settings import Settings
from pipelines.inference.engine import Engine
from pipelines.inference.registry import OPTIONAL_PARAMETERS, EngineSpec, EngineStatus, SamplingDefaults

SAMPLING_DEFAULTS = SamplingDefaults(temperature=0.8, top_p=0.95)

PARAMETERS = OPTIONAL_PARAMETERS - {"typical_p", "top_logprobs", "chat_template_kwargs"}


def _load(settings: Settings) -> Engine:
    from pipelines.inference.ctransformers.engine import load_ctransformers

    return load_ctransformers(settings)


def _model_name(settings: Settings) -> str:
    return Path(settings.model or "").stem


def _check(settings: Settings) -> EngineStatus:
    """Check that the package is installed, and that it can load the model."""
    from pipelines.inference.ctransformers.model_file import check_file
    from pipelines.inference.llamacpp.context_size import context_of
    from pipelines.inference.llamacpp.gguf_files import name_and_size

    file = check_file(settings)
    slots = f"{settings.slots} slots with a context of {context_of(settings):,} tokens"
    return EngineStatus(f"ctransformers with {name_and_size(file)}, {slots}")


def _context(settings: Settings) -> int:
    from pipelines.inference.llamacpp.context_size import context_of

    return context_of(settings)


ENGINE = EngineSpec(
    _load, _model_name, _check, supports_reflection=lambda _: True, requires=("model",),
    sampling_defaults=SAMPLING_DEFAULTS, parameters=lambda _: PARAMETERS, context=_context, may_reason=lambda _: False,
)  # fmt: skip
