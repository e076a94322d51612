"""A file in the shape of Llama 3.1 8B with random 4-bit weights, written block by block: 4.5 GB in half a minute."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from bench.harness.random_models.llama31 import VOCABULARY_8B, add_metadata, rope_factors, vocabulary
from bench.harness.random_models.shape import LLAMA_8B, Shape, matrices, new_writer, norms

Bytes = npt.NDArray[np.uint8]

#: A block of Q4_K: 256 weights `scale * (d * number - dmin)` in 144 bytes, with numbers of 4 bits and eight scales.
WEIGHTS, BLOCK, KIND = 256, 144, gguf.GGMLQuantizationType.Q4_K

#: The twelve bytes by which all scales and all offsets are 8, and the standard deviation of 8 * number.
SCALES, DEVIATION = (*[8] * 8, *[0x88] * 4), 8 * 4.61

#: Blocks that are drawn at once: 18 MB. They repeat.
DRAWN = 1 << 17


def large_bytes(shape: Shape = LLAMA_8B, tokens: int = VOCABULARY_8B) -> int:
    """Return the bytes of the weights."""
    return sum(rows * columns for _, (rows, columns) in matrices(shape, tokens)) // WEIGHTS * BLOCK


def write_large(path: Path, shape: Shape = LLAMA_8B, tokens: int = VOCABULARY_8B) -> Path:
    """Write the file. Takes memory for its largest matrix."""
    writer = new_writer(path)
    add_metadata(writer, shape, *vocabulary(tokens))
    for name, size in matrices(shape, tokens):
        rows, columns = size
        shape_in_bytes = (rows, columns // WEIGHTS * BLOCK)
        writer.add_tensor_info(name, shape_in_bytes, np.dtype(np.uint8), rows * shape_in_bytes[1], raw_dtype=KIND)
    vectors = dict(_vectors(shape))
    for name, vector in vectors.items():
        writer.add_tensor_info(name, vector.shape, vector.dtype, vector.nbytes)
    _write(writer, shape, tokens, list(vectors.values()))
    return path


def _write(writer: Any, shape: Shape, tokens: int, vectors: list[npt.NDArray[np.float32]]) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    blocks = _random_blocks()
    for name, (rows, columns) in matrices(shape, tokens):
        deviation = 1.0 if name == "token_embd.weight" else columns**-0.5
        writer.write_tensor_data(_scaled(blocks, rows * columns // WEIGHTS, deviation))
    for vector in vectors:
        writer.write_tensor_data(vector)
    writer.close()


def _vectors(shape: Shape) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for name in norms(shape):
        yield name, np.ones(shape.width, np.float32)
    yield "rope_freqs.weight", rope_factors(shape)


def _random_blocks() -> Bytes:
    blocks = np.frombuffer(np.random.default_rng(1).bytes(DRAWN * BLOCK), np.uint8).reshape(DRAWN, BLOCK).copy()
    blocks[:, 4:16] = SCALES
    return blocks


def _scaled(blocks: Bytes, count: int, deviation: float) -> Bytes:
    """Return blocks of weights with mean 0 and this standard deviation."""
    scale = deviation / DEVIATION
    blocks[:, :4] = np.array([scale, 7.5 * scale], np.float16).view(np.uint8)
    return np.resize(blocks, (count, BLOCK))
