"""Read a file's content, which is one object or several."""

from collections.abc import Iterator

from models.accounts.files import File
from models.platform.object_store import DamagedObject, ObjectStore


def read_content(objects: ObjectStore, file: File, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Return the content from an offset on, at most `length` bytes, in chunks.

    Raises NotFound if the content was deleted, and Unavailable: of the first object before the first chunk. Raises
    DamagedObject before the last chunk of an object that was altered, and after that of one that was truncated.
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
    yield from _complete(first, ranges[0])
    for each in ranges[1:]:
        yield from _complete(objects.get(*each), each)


def _complete(chunks: Iterator[bytes], expected: tuple[str, int, int]) -> Iterator[bytes]:
    """Return the chunks. Raises DamagedObject if they are fewer bytes than expected."""
    key, _, missing = expected
    for chunk in chunks:
        missing -= len(chunk)
        yield chunk
    if missing:
        raise DamagedObject(f"the object {key} has {missing} bytes too few")
