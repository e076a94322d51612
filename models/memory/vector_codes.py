"""Binary codes of vectors: the first pass of the search by meaning in a large space.

A code has a bit for the sign of each of the vector's numbers. The number of bits in which two codes differ approximates
the angle between the vectors, so the nearest by code (`code_search`) include the nearest by vector, which an exact
comparison then finds (`vector_search`). A row holds the codes of BLOCK ordinals: the 100,000 codes of a space are 5 MB
in 200 rows, wherever its vectors are on the disk.

A block is computed from the rows of `memory_vectors`. A memory without a live vector has a code of zeros. Only full
blocks exist, and only those of spaces that were large; memories after the last block are compared exactly. Writers hold
the space's lock.
"""

from collections.abc import Sequence
from uuid import UUID

from models.memory.spaces import Space
from models.platform.database import Connection, fetch_all

#: Ordinals per row. A row has 24 KB; each deletion in a large space rewrites one.
BLOCK = 512

#: Live memories up to which a search compares all vectors, in 5 to 10 ms.
EXACT_UP_TO = 5_000

#: Blocks that one statement packs, in about 0.1 s.
MAX_PACKED = 32

#: Bytes of a code.
CODE_SIZE = 48

# bit_send precedes the bits by their number, in four bytes. The bounds let Postgres read one range of the key.
PACKED = """
LATERAL (
    SELECT CASE WHEN count(embedding) = 0 THEN '' ELSE
        string_agg(coalesce(substring(bit_send(binary_quantize(embedding)) FROM 5), %(zeros)s), '' ORDER BY slot)
        END AS codes
    FROM generate_series(block * %(size)s, block * %(size)s + %(size)s - 1) AS slot
    LEFT JOIN (
        SELECT ordinal, embedding FROM memory_vectors
        WHERE space_id = %(space_id)s AND live
          AND ordinal BETWEEN block * %(size)s AND block * %(size)s + %(size)s - 1) AS vectors ON ordinal = slot
) AS packed
"""


def pack_filled(connection: Connection, space: Space, inserted: int) -> None:
    """Pack the codes of a large space when the memories inserted since `space` was read have filled a block."""
    next_ordinal = space.next_ordinal + inserted
    if space.live + inserted > EXACT_UP_TO and next_ordinal // BLOCK > space.next_ordinal // BLOCK:
        pack(connection, space.id, next_ordinal)


PACK = f"""
INSERT INTO memory_vector_codes (space_id, block, codes, version)
SELECT %(space_id)s, block, packed.codes, gen_random_uuid()
FROM (SELECT coalesce(max(block) + 1, 0) AS first FROM memory_vector_codes WHERE space_id = %(space_id)s) AS missing,
    generate_series(first, least(first + %(most)s, %(full)s) - 1) AS block, {PACKED}
"""


def pack(connection: Connection, space_id: int, next_ordinal: int) -> int:
    """Pack the first MAX_PACKED full blocks that are missing. Returns how many there were."""
    parameters = {"full": next_ordinal // BLOCK, "most": MAX_PACKED}
    return connection.execute(PACK, {**_block_parameters(space_id), **parameters}).rowcount


REFRESH = f"""
INSERT INTO memory_vector_codes (space_id, block, codes, version)
SELECT %(space_id)s, block, packed.codes, gen_random_uuid()
FROM (SELECT block FROM memory_vector_codes WHERE space_id = %(space_id)s AND block = ANY(%(blocks)s)) AS stale,
    {PACKED}
ON CONFLICT (space_id, block) DO UPDATE SET codes = excluded.codes, version = excluded.version
WHERE memory_vector_codes.codes <> excluded.codes
"""


def refresh(connection: Connection, space_id: int, ordinals: Sequence[int]) -> int:
    """Pack the blocks of these ordinals again, where they exist, after their vectors have changed.

    Returns how many blocks have other codes now.
    """
    if blocks := sorted({ordinal // BLOCK for ordinal in ordinals}):
        return connection.execute(REFRESH, {**_block_parameters(space_id), "blocks": blocks}).rowcount
    return 0


def _block_parameters(space_id: int) -> dict[str, object]:
    return {"space_id": space_id, "size": BLOCK, "zeros": bytes(CODE_SIZE)}


UNPACKED = """
SELECT id, next_ordinal FROM memory_spaces
LEFT JOIN (SELECT space_id, max(block) + 1 AS blocks FROM memory_vector_codes GROUP BY space_id) AS packed
    ON space_id = id
WHERE live > %(exact)s AND next_ordinal / %(size)s > coalesce(blocks, 0)
"""


def spaces_to_pack(connection: Connection) -> list[int]:
    """Return the ids of large spaces that lack a full block."""
    rows = fetch_all(connection, UNPACKED, {"exact": EXACT_UP_TO, "size": BLOCK})
    return [row["id"] for row in rows]


SPACES = "SELECT DISTINCT space_id FROM memory_vector_codes"


def packed_spaces(connection: Connection) -> list[int]:
    """Return the ids of the spaces that have codes."""
    return [row["space_id"] for row in fetch_all(connection, SPACES)]


BlockVersions = dict[int, UUID]

VERSIONS = "SELECT block, version FROM memory_vector_codes WHERE space_id = %(space_id)s ORDER BY block"


def read_versions(connection: Connection, space_id: int) -> BlockVersions:
    """Return the version of each block, in order. It changes whenever the block is written."""
    rows = connection.execute(VERSIONS, {"space_id": space_id}, binary=True).fetchall()
    return {row["block"]: row["version"] for row in rows}


CODES = """
SELECT block, codes FROM memory_vector_codes WHERE space_id = %(space_id)s AND block = ANY(%(blocks)s::int[])
"""


def read_codes(connection: Connection, space_id: int, blocks: Sequence[int]) -> dict[int, bytes]:
    """Return the codes of blocks. Binary format halves the size of bytea."""
    parameters = {"space_id": space_id, "blocks": list(blocks)}
    rows = connection.execute(CODES, parameters, binary=True).fetchall()
    return {row["block"]: row["codes"] for row in rows}
