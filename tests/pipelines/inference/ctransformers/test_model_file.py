"""ctransformers is asked to load only what it can: the error is one line that says what can load the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from bench.harness.random_models.llama2 import write_llama2
from bench.harness.random_models.llama31 import write_llama31
from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from pipelines.inference.ctransformers.model_file import check_file
from pipelines.inference.registry import engine_spec


def write(path: Path, architecture: str = "llama", vocabulary: str = "llama", tensors: Sequence[Any] = ()) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model(vocabulary)
    for name, data, kind in tensors:
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def error_of(file: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_file(Settings(engine="ctransformers", model=str(file)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_llama_with_a_sentencepiece_vocabulary_is_accepted(tmp_path: Path) -> None:
    settings = Settings(engine="ctransformers", model=str(write_llama2(tmp_path / "model.gguf")), slots=2)

    assert check_file(settings) == tmp_path / "model.gguf"
    assert engine_spec(settings).check(settings).detail.startswith("ctransformers with model.gguf")


def test_llama_3_is_refused_with_what_can_load_it(tmp_path: Path) -> None:
    error = error_of(write_llama31(tmp_path / "model.gguf"))

    assert "its vocabulary is of the kind gpt2, as in Llama 3" in error
    assert error.endswith("use SANGHA_ENGINE=llamacpp")


def test_scaled_frequencies_are_refused(tmp_path: Path) -> None:
    factors = ("rope_freqs.weight", np.ones(8, np.float32), None)

    assert "it has rope_freqs.weight" in error_of(write(tmp_path / "model.gguf", tensors=[factors]))


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    assert "its architecture is qwen2" in error_of(write(tmp_path / "model.gguf", architecture="qwen2"))


def test_weights_of_a_newer_type_are_refused(tmp_path: Path) -> None:
    weights = ("output.weight", np.zeros((1, 136), np.uint8), gguf.GGMLQuantizationType.IQ4_XS)

    assert "its weights are of a newer type" in error_of(write(tmp_path / "model.gguf", tensors=[weights]))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = write_llama2(tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:-1000])

    assert "the last 1,000 bytes of the file are missing" in error_of(file)


@pytest.mark.parametrize("size", [4, 24, 100, 3000])
def test_a_file_that_ends_in_its_metadata_is_refused(tmp_path: Path, size: int) -> None:
    file = write_llama2(tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:size])

    assert "can't be read" in error_of(file)


def test_the_model_is_required() -> None:
    with pytest.raises(ConfigurationError, match="SANGHA_MODEL is unset"):
        engine_spec(Settings(engine="ctransformers"))
