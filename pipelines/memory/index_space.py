"""Pack the codes of vectors that writers have not packed, and drop the vector indexes of earlier versions.

Writers pack the codes of new memories. What remains are the memories of large spaces from before there were codes, and
changes by processes of the previous version, which know none.
"""

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.memory import spaces, vector_codes, vector_indexes
from models.memory.vector_codes import BLOCK, MAX_PACKED


def run(attempt: Attempt) -> Ending:
    """Run `memory.index`, which only the previous version enqueues. Raises the reason to stop."""
    space_id = attempt.job.arguments["space_id"]
    _drop_index(attempt, space_id)
    pack_space(attempt, space_id)
    return plain_ending(attempt, "completed", result={"indexed": False})


def sweep(attempt: Attempt) -> None:
    """Drop the indexes of all spaces and pack what is missing. Raises the reason to stop."""
    with attempt.database.connection() as connection:
        indexed = vector_indexes.indexed_spaces(connection)
    for space_id in indexed:
        _drop_index(attempt, space_id)
        pack_space(attempt, space_id)
    with attempt.database.connection() as connection:
        incomplete = vector_codes.spaces_to_pack(connection)
    for space_id in incomplete:
        pack_space(attempt, space_id)


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
            vector_codes.refresh(connection, space_id, range(first, first + size, BLOCK))
            vector_codes.pack(connection, space_id, space.next_ordinal)
        first += size
