"""Choose the context if SANGHA_CONTEXT is unset: that which the model was trained for, or less to fit into memory.

A slot's context takes memory for each token, from the start: llama.cpp keeps two vectors a layer and attention head, of
16-bit numbers. The bundled model takes 23,040 bytes a token, and so 189 MB for a slot with its 8,192 tokens.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.gguf_metadata import read_metadata
from pipelines.inference.machine import usable_memory

#: Share of the memory that the model leaves free, for the contexts of all slots.
CONTEXT_SHARE = 1 / 4

#: The smallest context of a slot, unless the model's is smaller; and that of a file without metadata.
LEAST_CONTEXT = 4096

#: A slot's tokens are a multiple of this: llama.cpp rounds up to it.
GRANULARITY = 256

#: Bytes of a number in a context.
NUMBER_SIZE = 2

ARCHITECTURE = "general.architecture"
FIELDS = (
    "context_length", "block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The size of a model in a GGUF file: tokens of its context, bytes per token of context, and bytes of the file."""

    trained_context: int
    token_bytes: int
    file_bytes: int


def context_of(settings: Settings, gpu_memory: int | None = None) -> int:
    """Return the tokens of a slot that fit into the memory of the GPUs, or of the machine if it has none.

    Returns LEAST_CONTEXT if the file is missing, as on a web server. Reads the file once.
    """
    return settings.context or _default(settings.model, settings.slots, gpu_memory or usable_memory())


@cache
def _default(model: str | None, slots: int, memory: int) -> int:
    try:
        size = model_size(engine_file(Settings.model_construct(model=model)))
    except (ConfigurationError, OSError, ValueError):
        return LEAST_CONTEXT
    return fitting_context(size, slots, memory) if size else LEAST_CONTEXT


def fitting_context(size: ModelSize, slots: int, memory: int) -> int:
    """Return the tokens of a slot on a machine with `memory` bytes."""
    available = (memory - size.file_bytes) * CONTEXT_SHARE
    affordable = int(available / (slots * size.token_bytes)) // GRANULARITY * GRANULARITY
    return min(size.trained_context, max(affordable, LEAST_CONTEXT))


def context_bytes(settings: Settings, context: int) -> int | None:
    """Return the memory of the contexts of all slots; None if the file lacks the sizes. Raises ConfigurationError."""
    size = model_size(engine_file(settings))
    return settings.slots * context * size.token_bytes if size else None


@cache
def model_size(file: Path) -> ModelSize | None:
    """Read a model's size; None if the file lacks it. Raises OSError and ValueError."""
    architecture = read_metadata(file, [ARCHITECTURE]).get(ARCHITECTURE, b"").decode()
    metadata = read_metadata(file, [f"{architecture}.{field}" for field in FIELDS])
    fields: dict[str, Any] = {field: metadata.get(f"{architecture}.{field}") for field in FIELDS}
    heads, width = fields["attention.head_count"], fields["embedding_length"]
    numbers = (fields["context_length"], fields["block_count"], heads, width)
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        return None  # hybrid models have a number for each layer
    head = width // heads
    vectors = (fields["attention.key_length"] or head) + (fields["attention.value_length"] or head)
    token = fields["block_count"] * _key_heads(fields) * vectors * NUMBER_SIZE
    return ModelSize(fields["context_length"], token, file.stat().st_size)


def _key_heads(fields: dict[str, Any]) -> int:
    heads = fields["attention.head_count_kv"]
    return heads if isinstance(heads, int) and heads > 0 else int(fields["attention.head_count"])
