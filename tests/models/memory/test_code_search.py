"""Codes select candidates by their bits, and a process keeps copies of them within a limit."""

from uuid import uuid4

import numpy as np
import pytest

from models.memory import code_search, vector_codes
from models.memory.code_search import CodeCache, VectorCodes
from models.memory.vector_codes import CODE_SIZE


def codes_of(signs):
    """Build codes from rows of numbers; a row of zeros has a code of zeros."""
    words = np.packbits(signs > 0, axis=1).view(np.uint64)
    return VectorCodes({0: uuid4()}, {0: words}, words, np.arange(len(words)))


class Blocks:
    """The statements that read blocks, with stored blocks instead of a database."""

    def __init__(self, monkeypatch):
        self.stored, self.read = {}, []
        monkeypatch.setattr(vector_codes, "BLOCK", 1)
        monkeypatch.setattr(vector_codes, "read_versions", lambda *_: {key: at[0] for key, at in self.stored.items()})
        monkeypatch.setattr(vector_codes, "read_codes", self._read_codes)
        monkeypatch.setattr(code_search, "CACHE", CodeCache(1000 * CODE_SIZE))

    def write(self, block, byte):
        self.stored[block] = (uuid4(), bytes([byte]) * CODE_SIZE if byte else b"")

    def _read_codes(self, connection, space_id, blocks):
        self.read.append(list(blocks))
        return {block: self.stored[block][1] for block in blocks}


@pytest.fixture
def blocks(monkeypatch):
    return Blocks(monkeypatch)


def test_candidates_are_the_codes_with_the_fewest_different_bits():
    signs = np.ones((4, 8 * CODE_SIZE))
    signs[1, :9], signs[2, :3], signs[3] = -1, -1, 0
    codes = codes_of(signs)

    assert sorted(codes.nearest(signs[0], 2).tolist()) == [0, 2]
    assert sorted(codes.nearest(signs[0], 99).tolist()) == [0, 1, 2]  # the last is a code of zeros
    assert codes.nearest(signs[0], 99, np.array([1, 3])).tolist() == [1]


def test_second_pass_prefers_the_signs_of_the_greatest_numbers():
    query = np.full(8 * CODE_SIZE, 0.1)
    query[:2] = 9.0
    signs = np.ones((2, 8 * CODE_SIZE))
    signs[0, 0], signs[1, 2:5] = -1, -1  # the first differs in fewer bits, but where it matters

    assert codes_of(signs).nearest(query, 1).tolist() == [1]


def test_a_search_reads_only_changed_blocks(blocks):
    for block, byte in enumerate([1, 2, 3]):
        blocks.write(block, byte)
    code_search.read(None, 7)
    blocks.write(1, 9)
    blocks.write(2, 0)  # no memory of it is live
    blocks.write(3, 4)

    codes = code_search.read(None, 7)
    again = code_search.read(None, 7)

    assert blocks.read == [[0, 1, 2], [1, 2, 3]]
    assert codes.words.view(np.uint8)[:, 0].tolist() == [1, 9, 4]
    assert codes.ordinals.tolist() == [0, 1, 3]
    assert codes.end == 4
    assert again is codes


def test_a_space_without_blocks_has_no_codes(blocks):
    codes = code_search.read(None, 7)

    assert codes.end == 0
    assert codes.nearest(np.ones(8 * CODE_SIZE), 5).tolist() == []


def test_copies_of_the_least_recently_searched_spaces_are_dropped():
    cache = CodeCache(2 * CODE_SIZE)
    for space_id in (1, 2):
        cache.put(space_id, codes_of(np.ones((1, 8 * CODE_SIZE))))
    cache.get(1)
    cache.put(3, codes_of(np.ones((1, 8 * CODE_SIZE))))
    kept = [space_id for space_id in (1, 2, 3) if cache.get(space_id)]
    cache.put(4, codes_of(np.ones((3, 8 * CODE_SIZE))))

    assert kept == [1, 3]
    assert cache.get(4) is None  # alone beyond the limit
