"""The actors of the recall pool. It has its own embedder, so that a search never waits for the texts of an import."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.memory import search_memories
from pipelines.memory.recall_counter import RecallCounter
from tasks.job_runner import JobRunner

#: Threads, of which an account uses four. A search waits for Postgres for half of its time.
THREADS = 5


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    embedder, counter = load_embedder(runner.settings), RecallCounter(runner.database)
    run = partial(search_memories.run, embedder.embed, counter)
    runner.declare("memory.search", Handler(run=run, end=plain_ending))
    return {"recall": THREADS}
