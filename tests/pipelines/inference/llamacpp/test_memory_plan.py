"""The memory of a model, by the numbers of Llama 3.1 8B."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from bench.harness.random_models.llama31 import add_metadata, vocabulary, write_llama31
from bench.harness.random_models.shape import LLAMA_8B, matrices
from pipelines.inference.llamacpp.context_size import ModelSize, model_size
from pipelines.inference.llamacpp.gguf_metadata import GgufContents, Tensor, read_contents
from pipelines.inference.llamacpp.gguf_weights import missing_bytes, quantisation, weight_bytes
from pipelines.inference.llamacpp.memory_plan import RESERVE, MemoryPlan

GIB = 1 << 30

#: Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf.
LLAMA = ModelSize(trained_context=131_072, token_bytes=128 << 10, file_bytes=4_920_734_272)


def test_a_token_of_llama_3_1_8b_takes_128_kib(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    add_metadata(writer, LLAMA_8B, *vocabulary())
    writer.add_tensor("output_norm.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    size = model_size(tmp_path / "model.gguf")

    assert size is not None
    assert (size.trained_context, size.token_bytes) == (131_072, 128 << 10)


def test_llama_3_1_8b_has_8_billion_weights() -> None:
    assert sum(rows * columns for _, (rows, columns) in matrices(LLAMA_8B, 128_256)) == pytest.approx(8.03e9, rel=1e-3)


@pytest.mark.parametrize(
    ("memory", "context", "slots"),
    [(8, 8192, 2), (16, 8192, 10), (24, 32_768, 4), (24, 131_072, 1), (80, 8192, 74), (4, 4096, 0)],
)
def test_as_many_slots_fit_as_the_memory_beside_the_weights_holds(memory: int, context: int, slots: int) -> None:
    plan = MemoryPlan(LLAMA, memory * GIB)

    assert plan.max_slots(context) == slots
    used = RESERVE + LLAMA.file_bytes + slots * context * LLAMA.token_bytes
    assert used <= memory * GIB or not slots
    assert plan.missing(slots, context) == (0 if slots else -plan.available)
    assert plan.missing(slots + 1, context) > 0


def test_a_slot_of_8192_tokens_takes_1_gib() -> None:
    assert MemoryPlan(LLAMA, 16 * GIB).context_bytes(8192) == GIB


def test_the_largest_context_is_the_models_own_at_most() -> None:
    assert MemoryPlan(LLAMA, 80 * GIB).max_context(1) == 131_072
    assert MemoryPlan(LLAMA, 16 * GIB).max_context(4) == 21_334
    assert MemoryPlan(LLAMA, 4 * GIB).max_context(4) == 0


def test_weights_are_counted_by_their_type(tmp_path: Path) -> None:
    contents = GgufContents({}, (Tensor("a", (256, 10), 12, 0), Tensor("b", (10,), 0, 1440)), 96)

    assert (weight_bytes(contents), quantisation(contents)) == (10 * 144 + 40, "Q4_K")
    assert missing_bytes(contents, 96 + 1440 + 40) == 0
    assert missing_bytes(contents, 96 + 1440) == 40


def test_all_metadata_and_tensors_of_a_file_are_read(tmp_path: Path) -> None:
    file = write_llama31(tmp_path / "model.gguf")

    contents = read_contents(file)

    reader = gguf.GGUFReader(file)
    tensors = [(tensor.name, tuple(tensor.shape), contents.data_start + own.offset)
               for tensor, own in zip(reader.tensors, contents.tensors, strict=True)]  # fmt: skip
    assert [(own.name, own.shape, contents.data_start + own.offset) for own in contents.tensors] == tensors
    assert contents.data_start == reader.data_offset
    assert contents.metadata["general.architecture"] == b"llama"
    assert contents.metadata["tokenizer.ggml.token_type"].sum() > 0
    assert missing_bytes(contents, file.stat().st_size) == 0
