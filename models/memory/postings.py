"""The inverted index of a space: for a term and a block of ordinals, the memories with that term, as packed entries.

An entry is a slot in the block and the term's weight, each an unsigned 16-bit integer. A row replaces hundreds of rows
of a plain table of terms: a search reads few rows and counts in numpy. Adding appends in SQL without reading; removing
rewrites the rows of the memory's terms. Writers hold the space's lock.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.platform.database import Connection

#: Ordinals per row. The most frequent term of a block takes 8 KB.
BLOCK = 2048

ENTRY = np.dtype([("slot", "<u2"), ("weight", "<u2")])

#: Units of a weight of 1, and the greatest value of an entry: weights are at most 16.
SCALE, MAX_WEIGHT = 4096, 65535

#: Term → its weight in a memory.
TermWeights = Mapping[str, float]

#: The term and the block of a row.
PostingKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Postings:
    """The ordinals of the memories with a term, and its weight in each."""

    ordinals: NDArray[np.int64]
    weights: NDArray[np.float64]


# In the order of the key, so that rows that are read together are stored together.
ADD = """
INSERT INTO memory_postings (space_id, term, block, entries)
SELECT %(space_id)s, term, block, entries
FROM unnest(%(terms)s::text[], %(blocks)s::int[], %(entries)s::bytea[]) AS new (term, block, entries)
ORDER BY term COLLATE "C", block
ON CONFLICT (space_id, term, block) DO UPDATE SET entries = memory_postings.entries || excluded.entries
"""


def add(connection: Connection, space_id: int, weights: Mapping[int, TermWeights]) -> None:
    """Add memories, ordinal → weights of its terms, that are not indexed yet."""
    rows: dict[PostingKey, list[tuple[int, int]]] = defaultdict(list)
    for ordinal in sorted(weights):
        block, slot = divmod(ordinal, BLOCK)
        for term, weight in weights[ordinal].items():
            rows[term, block].append((slot, min(max(round(weight * SCALE), 1), MAX_WEIGHT)))
    if rows:
        packed = {key: np.array(entries, dtype=ENTRY).tobytes() for key, entries in rows.items()}
        connection.execute(ADD, {**_key_parameters(space_id, packed), "entries": list(packed.values())})


def _key_parameters(space_id: int, keys: Iterable[PostingKey]) -> dict[str, Any]:
    """Return the keys of rows as parameters."""
    row_keys = list(keys)
    return {"space_id": space_id, "terms": [term for term, _ in row_keys], "blocks": [block for _, block in row_keys]}


ROWS = """
SELECT memory_postings.term, memory_postings.block, entries FROM memory_postings
JOIN unnest(%(terms)s::text[], %(blocks)s::int[]) AS wanted (term, block)
    ON memory_postings.term = wanted.term COLLATE "C" AND memory_postings.block = wanted.block
WHERE space_id = %(space_id)s
"""

REWRITE = """
UPDATE memory_postings SET entries = new.entries
FROM unnest(%(terms)s::text[], %(blocks)s::int[], %(entries)s::bytea[]) AS new (term, block, entries)
WHERE space_id = %(space_id)s AND memory_postings.term = new.term COLLATE "C" AND memory_postings.block = new.block
"""

DELETE_EMPTY = """
DELETE FROM memory_postings USING unnest(%(terms)s::text[], %(blocks)s::int[]) AS emptied (term, block)
WHERE space_id = %(space_id)s
  AND memory_postings.term = emptied.term COLLATE "C" AND memory_postings.block = emptied.block
"""


def remove(connection: Connection, space_id: int, terms_of: Mapping[int, Iterable[str]]) -> None:
    """Remove memories: ordinal → the terms that it is indexed under."""
    slots_of: dict[PostingKey, set[int]] = defaultdict(set)
    for ordinal, terms in terms_of.items():
        for term in terms:
            slots_of[term, ordinal // BLOCK].add(ordinal % BLOCK)
    if not slots_of:
        return
    rows = connection.execute(ROWS, _key_parameters(space_id, slots_of), binary=True).fetchall()
    remaining = {
        (row["term"], row["block"]): _without(row["entries"], slots_of[row["term"], row["block"]]) for row in rows
    }
    if kept := {key: entries for key, entries in remaining.items() if entries}:
        connection.execute(REWRITE, {**_key_parameters(space_id, kept), "entries": list(kept.values())})
    if empty := [key for key, entries in remaining.items() if not entries]:
        connection.execute(DELETE_EMPTY, _key_parameters(space_id, empty))


def _without(entries: bytes, slots: set[int]) -> bytes:
    packed = np.frombuffer(entries, dtype=ENTRY)
    return packed[~np.isin(packed["slot"], list(slots))].tobytes()


READ = """
SELECT term, block, entries FROM memory_postings WHERE space_id = %(space_id)s AND term = ANY(%(terms)s)
"""


def read(connection: Connection, space_id: int, terms: Iterable[str]) -> dict[str, Postings]:
    """Return the postings of those of the terms that occur."""
    # Binary format halves the size of bytea.
    rows = connection.execute(READ, {"space_id": space_id, "terms": list(terms)}, binary=True).fetchall()
    return unpack((row["term"], row["block"], row["entries"]) for row in rows)


def unpack(rows: Iterable[tuple[str, int, bytes]]) -> dict[str, Postings]:
    """Join the entries of rows of (term, block, entries) by term."""
    blocks: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for term, block, entries in rows:
        blocks[term].append((block, entries))
    return {term: _joined(packed) for term, packed in blocks.items()}


def _joined(blocks: Sequence[tuple[int, bytes]]) -> Postings:
    entries = np.frombuffer(b"".join(packed for _, packed in blocks), dtype=ENTRY)
    counts = [len(packed) // ENTRY.itemsize for _, packed in blocks]
    offsets = np.repeat(np.array([block * BLOCK for block, _ in blocks], dtype=np.int64), counts)
    return Postings(offsets + entries["slot"], entries["weight"] / SCALE)
