"""Search among the binary codes of a space's vectors, in copies that this process keeps.

A search reads the versions of the space's blocks, and the codes of those that have changed since the last search. The
copies of the least recently searched spaces are dropped.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from models.memory import vector_codes
from models.memory.vector_codes import CODE_SIZE, BlockVersions
from models.platform.database import Connection

Ordinals = NDArray[np.int64]

#: Bytes of codes that a process keeps: those of 1.3 million memories.
MAX_KEPT = 64 * 2**20

#: Codes with the fewest different bits that are compared with the vector's numbers, per candidate.
COMPARED_PER_CANDIDATE = 4

#: Greater than the distance between any two codes.
NEVER = 8 * CODE_SIZE + 1


@dataclass(frozen=True, slots=True)
class VectorCodes:
    """The codes of a space.

    versions  of its blocks, in order
    parts     the codes of each block that is not empty, as views of `words`
    words     a code per row, as six numbers of 64 bits
    ordinals  of the codes
    """

    versions: BlockVersions
    parts: dict[int, NDArray[np.uint64]]
    words: NDArray[np.uint64]
    ordinals: Ordinals

    @property
    def end(self) -> int:
        """The first ordinal after the last block."""
        return (max(self.versions) + 1) * vector_codes.BLOCK if self.versions else 0

    def nearest(self, vector: Sequence[float], limit: int, allowed: Ordinals | None = None) -> Ordinals:
        """Return the ordinals of at most `limit` candidates, of all or of the allowed ordinals, in no order.

        The first pass counts different bits. The second adds the vector's numbers where a code has a bit, which orders
        as the scalar product with the signs, and is several times as exact.
        """
        numbers = np.asarray(vector, dtype=np.float32)
        distances = self._distances(np.packbits(numbers > 0).view(np.uint64))
        if allowed is not None:
            distances[~np.isin(self.ordinals, allowed)] = NEVER
        rows = _smallest(distances, COMPARED_PER_CANDIDATE * limit)
        rows = rows[distances[rows] < NEVER]
        bits = np.unpackbits(self.words[rows].view(np.uint8), axis=1)
        return self.ordinals[rows[_smallest(-(bits @ numbers), limit)]]

    def _distances(self, query: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """Return the number of different bits of each code, NEVER for codes of zeros.

        Column by column, which needs little memory.
        """
        distances = np.zeros(len(self.words), dtype=np.uint16)
        for column, word in enumerate(query):
            distances += np.bitwise_count(self.words[:, column] ^ word)
        # A code of zeros differs from the query in as many bits as the query has; few others do.
        suspects = np.flatnonzero(distances == np.bitwise_count(query).sum())
        distances[suspects[~self.words[suspects].any(axis=1)]] = NEVER
        return distances


def _smallest(values: NDArray[np.number], count: int) -> NDArray[np.intp]:
    """Return the indexes of the smallest values, in no order."""
    return np.argpartition(values, count)[:count] if len(values) > count else np.arange(len(values))


class CodeCache:
    """Copies of spaces' codes, at most `max_bytes` of them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[int, VectorCodes] = OrderedDict()
        self._lock = Lock()

    def get(self, space_id: int) -> VectorCodes | None:
        """Return the copy of a space's codes, which may be outdated."""
        with self._lock:
            if space_id in self._kept:
                self._kept.move_to_end(space_id)
            return self._kept.get(space_id)

    def put(self, space_id: int, codes: VectorCodes) -> None:
        """Keep a copy, and drop the least recently used ones beyond the limit."""
        with self._lock:
            self._kept[space_id] = codes
            self._kept.move_to_end(space_id)
            size = sum(each.words.nbytes for each in self._kept.values())
            while size > self._max_bytes:
                size -= self._kept.popitem(last=False)[1].words.nbytes


CACHE = CodeCache(MAX_KEPT)


def read(connection: Connection, space_id: int) -> VectorCodes:
    """Return the codes of a space, from this process's copy where it is current."""
    versions, copy = vector_codes.read_versions(connection, space_id), CACHE.get(space_id)
    if copy is not None and copy.versions == versions:
        return copy
    known = copy.versions if copy else {}
    changed = [block for block, version in versions.items() if known.get(block) != version]
    # A block that is written between the two statements has newer codes than its version: the next search reads it
    # again.
    fresh = vector_codes.read_codes(connection, space_id, changed) if changed else {}
    codes = _assembled(versions, fresh, copy.parts if copy else {})
    CACHE.put(space_id, codes)
    return codes


def _assembled(versions: BlockVersions, fresh: dict[int, bytes], kept: dict[int, NDArray[np.uint64]]) -> VectorCodes:
    """Join fresh blocks and kept ones."""
    arrays = {block: np.frombuffer(codes, dtype=np.uint64) for block, codes in fresh.items() if codes}
    arrays |= {block: part.ravel() for block, part in kept.items() if block in versions and block not in fresh}
    blocks = sorted(arrays)
    words = np.concatenate([arrays[block] for block in blocks] or [np.zeros(0, np.uint64)])
    words = words.reshape(-1, CODE_SIZE // 8)
    size = vector_codes.BLOCK
    parts = {block: words[index * size : (index + 1) * size] for index, block in enumerate(blocks)}
    ordinals = np.array(blocks, dtype=np.int64)[:, None] * size + np.arange(size)
    return VectorCodes(versions, parts, words, ordinals.ravel())
