"""Pack the codes of vectors that writers have not packed, and drop the vector indexes of earlier versions.

Writers pack the codes of new memories. What remains are the memories of large spaces from before there were codes, and
changes by processes of the previous version, which know none.
"""

import logging

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import spaces, vector_codes, vector_indexes
from models.memory.vector_codes import BLOCK, MAX_PACKED
from models.platform.compatibility import earlier_seen
from pipelines.memory import reindex

log = logging.getLogger(__name__)

#: Days after a process of an earlier version was seen for which all codes are checked each night.
REPAIR_DAYS = 2


def run(attempt: Attempt) -> Ending:
    """Run `memory.index`, which only the previous version enqueues. Raises the reason to stop."""
    space_id = attempt.job.arguments["space_id"]
    _drop_index(attempt, space_id)
    pack_space(attempt, space_id)
    return plain_ending(attempt, "completed", result={"indexed": False})


def sweep(attempt: Attempt) -> None:
    """Drop the indexes of all spaces, pack what is missing or may be wrong, and enqueue what is to be indexed again.

    Raises the reason to stop.

    Processes of the previous version change vectors without their codes. So for some nights after such a process was
    seen, all codes are compared with their vectors, which takes 0.6 s for 100,000 memories.
    """
    with attempt.database.connection() as connection:
        indexed = vector_indexes.indexed_spaces(connection)
    for space_id in indexed:
        _drop_index(attempt, space_id)
        pack_space(attempt, space_id)
    with attempt.database.connection() as connection:
        incomplete = vector_codes.spaces_to_pack(connection)
        changed = vector_codes.packed_spaces(connection) if earlier_seen(connection, REPAIR_DAYS) else []
    for space_id in sorted({*incomplete, *changed}):
        pack_space(attempt, space_id)
    with attempt.database.transaction() as connection:
        reindex.enqueue_due(connection)


def _drop_index(attempt: Attempt, space_id: int) -> None:
    attempt.check()
    with attempt.database.connection() as connection:
        vector_indexes.drop(connection, space_id)


def pack_space(attempt: Attempt, space_id: int) -> None:
    """Pack all full blocks of a large space, existing ones again, in transactions that hold its lock for 0.3 s."""
    first, size = 0, MAX_PACKED * BLOCK
    while True:
        attempt.check()
        with attempt.database.transaction() as connection:
            space = spaces.lock(connection, space_id)
            if space is None or space.live <= vector_codes.EXACT_UP_TO or space.next_ordinal <= first:
                return
            if repaired := vector_codes.refresh(connection, space_id, range(first, first + size, BLOCK)):
                log.info("Corrected %d blocks of vector codes of space %d", repaired, space_id)
            vector_codes.pack(connection, space_id, space.next_ordinal)
        first += size
