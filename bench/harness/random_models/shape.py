"""The sizes of a model, its metadata and its weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

#: Words with tokens of their own.
WORDS = (
    "the", "of", "and", "to", "in", "is", "it", "you", "that", "was", "for", "on", "are", "with", "as", "his", "they",
    "be", "at", "one", "have", "this", "from", "or", "had", "by",
)  # fmt: skip

#: The first channel of each token is constant, and no layer changes it: by it the output has a bias for each token.
CONSTANT = 8.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama model.

    context    tokens that it was trained for
    layers     number of layers
    width      numbers of a token
    heads      attention heads, and `key_heads` those of keys and values
    hidden     width of the feed-forward layers
    rope_base  base of the rotary position embedding
    """

    context: int = 2048
    layers: int = 2
    width: int = 64
    heads: int = 4
    key_heads: int = 2
    hidden: int = 128
    rope_base: float = 500_000.0

    @property
    def head(self) -> int:
        """The width of a head."""
        return self.width // self.heads


TINY = Shape()

#: Llama 3.1 8B.
LLAMA_8B = Shape(context=131_072, layers=32, width=4096, heads=32, key_heads=8, hidden=14_336)


def describe(writer: Any, name: str, shape: Shape, vocabulary: int) -> None:
    """Write the metadata of the architecture."""
    writer.add_name(name)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head)
    writer.add_vocab_size(vocabulary)


def matrices(shape: Shape, vocabulary: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the name and the rows and columns of each matrix."""
    keys = shape.key_heads * shape.head
    yield "token_embd.weight", (vocabulary, shape.width)
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_q.weight", (shape.width, shape.width)
        yield f"blk.{layer}.attn_k.weight", (keys, shape.width)
        yield f"blk.{layer}.attn_v.weight", (keys, shape.width)
        yield f"blk.{layer}.attn_output.weight", (shape.width, shape.width)
        yield f"blk.{layer}.ffn_gate.weight", (shape.hidden, shape.width)
        yield f"blk.{layer}.ffn_up.weight", (shape.hidden, shape.width)
        yield f"blk.{layer}.ffn_down.weight", (shape.width, shape.hidden)
    yield "output.weight", (vocabulary, shape.width)


def norms(shape: Shape) -> Iterator[str]:
    """Yield the names of the vectors by which layers scale their input."""
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight"
        yield f"blk.{layer}.ffn_norm.weight"
    yield "output_norm.weight"


def add_weights(writer: Any, shape: Shape, biases: Sequence[float], seed: int = 1) -> None:
    """Write random weights. `biases` are added to the tokens' logits, roughly."""
    random = np.random.default_rng(seed)
    for name, size in matrices(shape, len(biases)):
        matrix = random.standard_normal(size, dtype=np.float32) * np.float32(size[1] ** -0.5)
        writer.add_tensor(name, _biased(name, matrix, biases))
    for name in norms(shape):
        writer.add_tensor(name, np.ones(shape.width, np.float32))


def write_file(writer: Any) -> None:
    """Write what was added and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _biased(name: str, matrix: Matrix, biases: Sequence[float]) -> Matrix:
    if name == "token_embd.weight":
        matrix *= np.float32(matrix.shape[1] ** 0.5)  # so that tokens weigh as much as what layers add
        matrix[:, 0] = CONSTANT
    elif name.endswith(("attn_output.weight", "ffn_down.weight")):
        matrix[0] = 0
    elif name == "output.weight":
        matrix *= 4
        matrix[:, 0] = biases
    return matrix


def new_writer(path: Any) -> Any:
    """Return a writer of a Llama model's file."""
    return gguf.GGUFWriter(path, "llama")
