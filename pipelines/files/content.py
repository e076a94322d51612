"""Read a file's content, which is one object or several."""

from collections.abc import Iterator

from models.accounts.files import File
from models.platform.object_store import ObjectStore


def read_content(objects: ObjectStore, file: File, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Return the content from an offset on, at most `length` bytes, in chunks.

    Raises NotFound if the content was deleted, and Unavailable: of the first object before the first chunk.
    """
    end = file.bytes if length is None else min(offset + length, file.bytes)
    ranges = list(_ranges(file, offset, end))
    if not ranges:
        return iter(())
    return _chained(objects, ranges, objects.get(*ranges[0]))


def _ranges(file: File, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Return (key, offset, length) of what each object has of the range."""
    position = 0
    for stored in file.objects:
        first, last = max(start, position), min(end, position + stored.bytes)
        if first < last:
            yield stored.key, first - position, last - first
        position += stored.bytes


def _chained(objects: ObjectStore, ranges: list[tuple[str, int, int]], first: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    for key, offset, length in ranges[1:]:
        yield from objects.get(key, offset, length)
