"""Read a GGUF file's metadata and the list of its tensors, without the tensors and without a library that maps them."""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

#: Formats of `struct` by GGUF's type number (ggml/docs/gguf.md); 8 is a string, 9 an array.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9

MAX_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: its GGML type by number, and where its data begins after `GgufContents.data_start`."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufContents:
    """All metadata, where texts are bytes and numbers arrays, the tensors, and where their data begins."""

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_start: int


def read_contents(path: Path) -> GgufContents:
    """Read everything but the tensors' data; takes 0.2 s with 128,000 tokens. Raises OSError and ValueError."""
    with path.open("rb") as file:
        try:
            _, tensors, entries = struct.unpack("<8sQQ", file.read(24))
            metadata = {_string(file).decode(): _typed_value(file) for _ in range(entries)}
            found = tuple(_tensor(file) for _ in range(tensors))
        except (struct.error, KeyError, OverflowError, MemoryError) as error:
            raise ValueError(f"{path} has damaged metadata") from error
        alignment = metadata.get("general.alignment", 32)
        return GgufContents(metadata, found, -(-file.tell() // alignment) * alignment)


def read_metadata(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the entries with these names that the file has; texts are bytes. Reads no further than the last of them.

    Raises OSError and ValueError for a file that is damaged.
    """
    found: dict[str, Any] = {}
    with path.open("rb") as file:
        try:
            _, _, entries = struct.unpack("<8sQQ", file.read(24))
            for _ in range(entries):
                name, kind = _string(file).decode(), _scalar(file, "<I")
                value = _value(file, kind)
                if name in names:
                    found[name] = value
                if len(found) == len(names):
                    break
        except (struct.error, KeyError, OverflowError, MemoryError) as error:
            raise ValueError(f"{path} has damaged metadata") from error
    return found


def _typed_value(file: BinaryIO) -> Any:
    kind = _scalar(file, "<I")
    if kind != ARRAY:
        return _value(file, kind)
    kind, length = _scalar(file, "<I"), _scalar(file, "<Q")
    if kind not in SCALARS:
        return [_value(file, kind) for _ in range(length)]
    data = file.read(length * struct.calcsize(SCALARS[kind]))
    return np.frombuffer(data, SCALARS[kind], length)


def _tensor(file: BinaryIO) -> Tensor:
    name, dimensions = _string(file).decode(), _scalar(file, "<I")
    if dimensions > MAX_DIMENSIONS:
        raise ValueError(f"the tensor {name} has {dimensions} dimensions")
    shape = tuple(_scalar(file, "<Q") for _ in range(dimensions))
    return Tensor(name, shape, _scalar(file, "<I"), _scalar(file, "<Q"))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        return _scalar(file, SCALARS[kind])
    kind, length = _scalar(file, "<I"), _scalar(file, "<Q")
    if kind in SCALARS:
        file.seek(length * struct.calcsize(SCALARS[kind]), 1)  # numbers by token, which nobody asks for
        return None
    return [_value(file, kind) for _ in range(length)]


def _string(file: BinaryIO) -> bytes:
    return file.read(_scalar(file, "<Q"))


def _scalar(file: BinaryIO, layout: str) -> Any:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
