"""The inverted index of a space: for a term and a block of ordinals, the memories that have it, as packed entries.

An entry is a slot in the block and the term's weight there, each an unsigned 16-bit integer. One row holds what a table
of terms would need hundreds of rows for: a search reads few rows, and counts in numpy. A writer appends in SQL, so that
it reads nothing; who takes a memory out rewrites the rows of its terms. Only the holder of the space's lock writes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.platform.database import Connection

#: Ordinals of a row. The commonest term of a block fills 8 KB.
BLOCK = 2048

ENTRY = np.dtype([("slot", "<u2"), ("weight", "<u2")])

#: Steps of a weight of 1, and the most of them that an entry holds: weights go up to 16.
SCALE, GREATEST = 4096, 65535

#: Term → how much it weighs in a memory.
Weights = Mapping[str, float]

#: A row's term and block.
PostingKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Postings:
    """The memories that have a term: their ordinals, and the term's weight in each."""

    ordinals: NDArray[np.int64]
    weights: NDArray[np.float64]


# In the order of the key, so that what is read together stands together.
ADD = """
INSERT INTO memory_postings (space_id, term, block, entries)
SELECT %(space_id)s, term, block, entries
FROM unnest(%(terms)s::text[], %(blocks)s::int[], %(entries)s::bytea[]) AS new (term, block, entries)
ORDER BY term COLLATE "C", block
ON CONFLICT (space_id, term, block) DO UPDATE SET entries = memory_postings.entries || excluded.entries
"""


def add(connection: Connection, space_id: int, weights: Mapping[int, Weights]) -> None:
    """Put memories, ordinal → its terms, into the postings, where they do not stand yet."""
    rows: dict[PostingKey, list[tuple[int, int]]] = defaultdict(list)
    for ordinal in sorted(weights):
        block, slot = divmod(ordinal, BLOCK)
        for term, weight in weights[ordinal].items():
            rows[term, block].append((slot, min(max(round(weight * SCALE), 1), GREATEST)))
    if rows:
        packed = {place: np.array(entries, dtype=ENTRY).tobytes() for place, entries in rows.items()}
        connection.execute(ADD, {**_places(space_id, packed), "entries": list(packed.values())})


def _places(space_id: int, places: Iterable[PostingKey]) -> dict[str, Any]:
    """Rows, as the statements want them."""
    told = list(places)
    return {"space_id": space_id, "terms": [term for term, _ in told], "blocks": [block for _, block in told]}


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
DELETE FROM memory_postings USING unnest(%(terms)s::text[], %(blocks)s::int[]) AS gone (term, block)
WHERE space_id = %(space_id)s AND memory_postings.term = gone.term COLLATE "C" AND memory_postings.block = gone.block
"""


def remove(connection: Connection, space_id: int, terms_of: Mapping[int, Iterable[str]]) -> None:
    """Take memories out of the postings: ordinal → the terms under which it stands there."""
    gone: dict[PostingKey, set[int]] = defaultdict(set)
    for ordinal, terms in terms_of.items():
        for term in terms:
            gone[term, ordinal // BLOCK].add(ordinal % BLOCK)
    if not gone:
        return
    rows = connection.execute(ROWS, _places(space_id, gone), binary=True).fetchall()
    left = {(row["term"], row["block"]): _without(row["entries"], gone[row["term"], row["block"]]) for row in rows}
    if kept := {place: entries for place, entries in left.items() if entries}:
        connection.execute(REWRITE, {**_places(space_id, kept), "entries": list(kept.values())})
    if empty := [place for place, entries in left.items() if not entries]:
        connection.execute(DELETE_EMPTY, _places(space_id, empty))


def _without(entries: bytes, slots: set[int]) -> bytes:
    packed = np.frombuffer(entries, dtype=ENTRY)
    return packed[~np.isin(packed["slot"], list(slots))].tobytes()


READ = """
SELECT term, block, entries FROM memory_postings WHERE space_id = %(space_id)s AND term = ANY(%(terms)s)
"""


def read(connection: Connection, space_id: int, terms: Iterable[str]) -> dict[str, Postings]:
    """Who has these terms; a term that nobody has is left out."""
    # Binary: as text, bytes are twice as many.
    rows = connection.execute(READ, {"space_id": space_id, "terms": list(terms)}, binary=True).fetchall()
    return unpack((row["term"], row["block"], row["entries"]) for row in rows)


def unpack(rows: Iterable[tuple[str, int, bytes]]) -> dict[str, Postings]:
    """What rows say, each a term, a block and its entries."""
    blocks: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for term, block, entries in rows:
        blocks[term].append((block, entries))
    return {term: _joined(found) for term, found in blocks.items()}


def _joined(blocks: Sequence[tuple[int, bytes]]) -> Postings:
    entries = np.frombuffer(b"".join(packed for _, packed in blocks), dtype=ENTRY)
    counts = [len(packed) // ENTRY.itemsize for _, packed in blocks]
    begins = np.repeat(np.array([block * BLOCK for block, _ in blocks], dtype=np.int64), counts)
    return Postings(begins + entries["slot"], entries["weight"] / SCALE)
