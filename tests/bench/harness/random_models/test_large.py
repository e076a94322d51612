"""Files with 4-bit weights are complete, are loaded, and have weights of the right size."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from bench.harness.random_models.large import large_bytes, write_large
from bench.harness.random_models.llama31 import SPECIAL, VOCABULARY_8B, vocabulary
from bench.harness.random_models.shape import Shape
from bench.llama_engine import run
from models.platform.settings import Settings
from pipelines.inference.engine import Message
from pipelines.inference.llamacpp.engine import load_llamacpp
from pipelines.inference.llamacpp.gguf_metadata import read_contents
from pipelines.inference.llamacpp.gguf_weights import missing_bytes, quantisation, weight_bytes

SMALL = Shape(context=1024, layers=1, width=512, heads=8, key_heads=2, hidden=512)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large(tmp_path_factory.mktemp("models") / "model.gguf", SMALL, tokens=2000)


def test_the_file_is_complete(file: Path) -> None:
    contents = read_contents(file)

    assert (missing_bytes(contents, file.stat().st_size), quantisation(contents)) == (0, "Q4_K")
    vectors = 4 * (3 * SMALL.width + SMALL.head // 2)
    assert weight_bytes(contents) == large_bytes(SMALL, 2000) + vectors


def test_weights_have_the_deviation_of_trained_ones(file: Path) -> None:
    matrix = next(tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == "blk.0.ffn_up.weight")

    weights = gguf.quants.dequantize(matrix.data, gguf.GGMLQuantizationType.Q4_K)

    assert np.mean(weights) == pytest.approx(0, abs=1e-3)
    assert np.std(weights) == pytest.approx(SMALL.width**-0.5, rel=0.02)


def test_the_engine_loads_it_and_continues_a_conversation_from_its_cache(file: Path) -> None:
    engine = load_llamacpp(Settings(model=str(file), slots=1, context=1024))
    try:
        first = run(engine, [Message("user", "the of and")])
        second = run(engine, [Message("user", "the of and")])
    finally:
        engine.close()
    assert (first.cached, second.cached) == (0, first.prompt - 1)


def test_the_vocabulary_has_the_size_of_llamas() -> None:
    tokens, merges = vocabulary(VOCABULARY_8B)

    assert len(tokens) == len(set(tokens)) == VOCABULARY_8B
    assert len(merges) == VOCABULARY_8B - 256 - 256
    assert set(SPECIAL) <= set(tokens)
    assert large_bytes() == pytest.approx(4.52e9, rel=1e-3)
