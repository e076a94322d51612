"""The context of a GGUF model is what it was trained for, up to what the memory holds."""

from pathlib import Path

import pytest

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.context import fit_messages
from pipelines.inference.engine import Message
from pipelines.inference.llamacpp.context_size import (
    LEAST_CONTEXT,
    ModelSize,
    context_bytes,
    context_of,
    fitting_context,
    model_size,
)
from pipelines.inference.llamacpp.devices import CPU, gpu_memory
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.registry import context_size, engine_spec

#: Llama 3.1 8B, quantised to 4 bits.
LLAMA = ModelSize(131_072, 131_072, 4_900_000_000)
GIB = 1 << 30


def test_the_bundled_model_gets_all_that_it_was_trained_for() -> None:
    assert model_size(engine_file(Settings())) == ModelSize(8192, 23_040, engine_file(Settings()).stat().st_size)
    assert context_size(Settings()) == 8192
    assert context_bytes(Settings(), 8192) == 4 * 8192 * 23_040


def test_a_setting_is_the_context() -> None:
    assert context_size(Settings(context=1024)) == 1024
    assert context_size(Settings(engine="scripted", context=1024)) == 1024


@pytest.mark.parametrize(
    ("memory", "slots", "tokens"),
    [(16 * GIB, 4, 5632), (64 * GIB, 4, 30_208), (64 * GIB, 1, 121_600), (512 * GIB, 1, 131_072), (8 * GIB, 8, 4096)],
)
def test_the_contexts_of_all_slots_take_at_most_a_quarter_of_the_memory(memory: int, slots: int, tokens: int) -> None:
    assert fitting_context(LLAMA, slots, memory) == tokens
    assert tokens == LEAST_CONTEXT or tokens * slots * LLAMA.token_bytes <= memory / 4


def test_the_memory_of_gpus_counts_where_there_are_any() -> None:
    cpu = {"type": CPU, "memory_total": 64 * GIB}
    assert gpu_memory([cpu]) is None
    assert (
        gpu_memory([cpu, {"type": None, "memory_total": 8 * GIB}, {"type": None, "memory_total": 8 * GIB}]) == 16 * GIB
    )
    assert context_of(Settings(slots=256), 16 * GIB) == LEAST_CONTEXT


def test_without_the_file_the_least_is_assumed(tmp_path: Path) -> None:
    assert context_of(Settings(model=str(tmp_path / "none.gguf"))) == LEAST_CONTEXT


def test_hosted_models_hold_more_than_scripted_ones() -> None:
    hosted = Settings(engine="openai", upstreams=(Upstream("x", "https://x/v1", ("m",)),))
    assert (context_size(hosted), context_size(Settings(engine="scripted"))) == (32_768, 4096)


def test_doctor_shows_the_context_and_its_memory() -> None:
    detail = engine_spec(Settings()).check(Settings()).detail
    assert "4 slots with a context of 8,192 tokens, which take 754 MB" in detail


def test_the_error_of_a_long_prompt_names_its_tokens_and_those_of_the_context(engine: object) -> None:
    with pytest.raises(PermanentFailure, match=r"takes? 6\d\d tokens and the answer up to 64, .* context of 512$"):
        fit_messages(engine, [Message("user", "a word " * 300)], 64)  # type: ignore[arg-type]
