"""Search for the memories of a space whose vectors are nearest to a query's.

Up to `vector_codes.EXACT_UP_TO` memories are compared exactly. In a larger space their binary codes select candidates,
which are then compared exactly, together with the memories that have no code yet.
"""

import numpy as np

from models.memory import code_search, vector_codes, vectors
from models.memory.code_search import Ordinals
from models.memory.spaces import Space
from models.memory.vectors import Matches, Vector
from models.platform.database import Connection

#: Candidates by code per result, and results for which there are enough at least. Of the 20 nearest vectors of real
#: texts more than 99 % are among them.
CANDIDATES_PER_RESULT, MIN_RESULTS = 4, 50

#: Memories without a code that are compared one by one; with more, as before the first packing, all are compared.
MAX_WITHOUT_CODE = 4_096


def nearest(
    connection: Connection, space: Space, vector: Vector, limit: int, allowed: Ordinals | None = None
) -> Matches:
    """Return the nearest live memories, of all or of the allowed ordinals."""
    if (space.live if allowed is None else len(allowed)) > vector_codes.EXACT_UP_TO:
        codes = code_search.read(connection, space.id)
        if space.next_ordinal - codes.end <= MAX_WITHOUT_CODE:
            candidates = codes.nearest(vector, CANDIDATES_PER_RESULT * max(limit, MIN_RESULTS), allowed)
            rest = np.arange(codes.end, space.next_ordinal) if allowed is None else allowed[allowed >= codes.end]
            ordinals = np.concatenate([candidates, rest])
            return vectors.search_among(connection, space.id, vector, ordinals, limit)
    if allowed is None:
        return vectors.search_exact(connection, space.id, vector, limit)
    return vectors.search_among(connection, space.id, vector, allowed, limit)
