"""llama.cpp in the worker's process, through xllamacpp: `SANGHA_ENGINE=llamacpp`, the default."""

from pathlib import Path

from models.platform.settings import Settings
from pipelines.inference.engine import Engine
from pipelines.inference.registry import EngineSpec, EngineStatus, SamplingDefaults

#: The bundled model: SmolLM2-135M-Instruct, Apache-2.0.
BUNDLED_MODEL = "smollm2-135m-instruct"

#: llama.cpp's defaults. They are sent with each request: a GGUF file may have others, which only a worker could read.
SAMPLING_DEFAULTS = SamplingDefaults(temperature=0.8, top_p=0.95)


def _load(settings: Settings) -> Engine:
    from pipelines.inference.llamacpp.engine import load_llamacpp

    return load_llamacpp(settings)


def _model_name(settings: Settings) -> str:
    return settings.model_name or (Path(settings.model).stem if settings.model else BUNDLED_MODEL)


def _check(settings: Settings) -> EngineStatus:
    """Check that the model is a GGUF file."""
    from pipelines.inference.llamacpp.context_size import context_bytes, context_of
    from pipelines.inference.llamacpp.devices import gpu_memory
    from pipelines.inference.llamacpp.gguf_files import engine_file, name_and_size

    context = context_of(settings, gpu_memory())
    slots = f"{settings.slots} slots with a context of {context:,} tokens"
    memory = context_bytes(settings, context)
    memory_text = "" if memory is None else f", which take {memory // 1_000_000} MB"
    return EngineStatus(f"llamacpp with {name_and_size(engine_file(settings))}, {slots}{memory_text}")


def _context(settings: Settings) -> int:
    from pipelines.inference.llamacpp.context_size import context_of

    return context_of(settings)


def _may_reason(settings: Settings) -> bool:
    from pipelines.inference.llamacpp.chat_template import may_reason

    return may_reason(settings)


def _supports_reflection(settings: Settings) -> bool:
    """Return False for the bundled model, which is too small to write useful facts."""
    return settings.model is not None


ENGINE = EngineSpec(
    _load, _model_name, _check, _supports_reflection, sampling_defaults=SAMPLING_DEFAULTS, context=_context,
    may_reason=_may_reason,
)  # fmt: skip
