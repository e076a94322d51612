"""Remembering what callers give; `turns` has what is said in turns. No language model takes part.

Doing it again changes nothing: what was given is known by the ids that the request made.
"""

from collections.abc import Sequence
from datetime import datetime

from models.jobs.attempt_context import Attempt
from models.jobs.attempts import Ending
from models.memory.memories import NewMemory
from pipelines.memory.endings import complete_without_arguments
from pipelines.memory.memory_input import from_job_arguments
from pipelines.memory.store import BATCH, Embed, write_memories

CREATE = "memory.create"


def run(embed: Embed, attempt: Attempt) -> Ending:
    """Write what a request gave. Afterwards it can be found."""
    arguments = attempt.job.arguments
    now = datetime.fromisoformat(arguments["now"])
    given = zip(arguments["ids"], arguments["memories"], strict=True)
    news = [from_job_arguments(told).to_new_memory(memory_id, now) for memory_id, told in given]
    ids, _ = _in_batches(embed, attempt, arguments["user_id"], news)
    return complete_without_arguments(attempt, {"ids": ids})


def _in_batches(embed: Embed, attempt: Attempt, user_id: str, news: Sequence[NewMemory]) -> tuple[list[str], int]:
    """Write memories, however many; says how far it is, and hears a cancel. Their ids, and how many are new."""
    ids: list[str] = []
    new = 0
    for begin in range(0, len(news), BATCH):
        if begin:
            attempt.report_progress(begin, len(news), note="memories written")
        attempt.check()
        written = write_memories(attempt.database, embed, attempt.job.account_id, user_id, news[begin : begin + BATCH])
        ids += written.ids
        new += written.new
    return ids, new
