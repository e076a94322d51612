"""Read single entries of a GGUF file's metadata, without its tensors and without a library that parses all of it."""

import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

#: Formats of `struct` by GGUF's type number (ggml/docs/gguf.md); 8 is a string, 9 an array.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


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
