"""The weights in a GGUF file: their bytes, and whether the file has all of them."""

from collections import Counter
from math import prod

import gguf

from pipelines.inference.llamacpp.gguf_metadata import GgufContents, Tensor


def weight_bytes(contents: GgufContents) -> int:
    """Return the bytes of all tensors. Raises ValueError for a type that is not known."""
    return sum(map(_size, contents.tensors))


def missing_bytes(contents: GgufContents, file_bytes: int) -> int:
    """Return how many bytes a file lacks at its end. Raises ValueError for a type that is not known."""
    ends = (contents.data_start + tensor.offset + _size(tensor) for tensor in contents.tensors)
    return max(0, max(ends, default=0) - file_bytes)


def quantisation(contents: GgufContents) -> str:
    """Return the type of most weights, such as Q4_K."""
    numbers: Counter[int] = Counter()
    for tensor in contents.tensors:
        numbers[tensor.kind] += prod(tensor.shape)
    return gguf.GGMLQuantizationType(numbers.most_common(1)[0][0]).name if numbers else "none"


def _size(tensor: Tensor) -> int:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
    return int(prod(tensor.shape) // block * size)
