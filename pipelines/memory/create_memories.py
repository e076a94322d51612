"""`memory.create`: write the memories of a request.

The request chose the ids, so that a repeated attempt writes nothing twice.
"""

from datetime import datetime

from models.jobs.attempt_context import Attempt
from models.jobs.attempts import Ending
from models.memory.spaces import SpaceKey
from pipelines.memory.endings import complete_without_arguments
from pipelines.memory.memory_input import from_job_arguments
from pipelines.memory.store import BATCH, Embed, stoppable, write_memories
from pipelines.time_slice import TimeSlice


def run(embed: Embed, attempt: Attempt) -> Ending:
    """Write the memories of a request in batches. Raises the reason to stop, PermanentFailure and EngineError."""
    job = attempt.job
    now = datetime.fromisoformat(job.arguments["now"])
    inputs = zip(job.arguments["ids"], job.arguments["memories"], strict=True)
    new_memories = [from_job_arguments(memory).to_new_memory(memory_id, now) for memory_id, memory in inputs]
    ids: list[str] = []
    time_slice = TimeSlice(attempt)
    for start in range(0, len(new_memories), BATCH):
        if start:
            attempt.report_progress(start, len(new_memories), note="memories written")
            time_slice.check()
        batch = new_memories[start : start + BATCH]
        embed_batch = stoppable(embed, attempt)
        ids += write_memories(attempt.database, embed_batch, SpaceKey.of_job(job), batch)
    return complete_without_arguments(attempt, {"ids": ids})
