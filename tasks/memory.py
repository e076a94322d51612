"""The actors of the memory pool. The embedder is loaded before any claim, which takes 0.1 s."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import ObjectStore
from pipelines.embeddings import embed
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.memory import (
    change_memory,
    create_memories,
    endings,
    extract_facts,
    forget_memories,
    import_file,
    reindex,
    remember_turns,
)
from pipelines.memory.meditation import meditate
from pipelines.memory.throttled_embedder import ThrottledEmbedder
from tasks.job_runner import JobRunner

#: Threads by queue, which share the embedder's single thread. An account uses two, so that its jobs do not wait for a
#: long one of its own.
THREADS = {"memory": 3, "memory_batch": 3}


def declare_actors(runner: JobRunner) -> dict[str, int]:
    """Declare the actors. Returns the number of threads by queue."""
    embedder = load_embedder(runner.settings)
    throttled_embed = ThrottledEmbedder(embedder.embed)
    objects = ObjectStore.open(runner.settings)
    handlers = {
        "embedding.create": Handler(partial(embed.run, embedder), plain_ending),
        "memory.create": Handler(partial(create_memories.run, embedder.embed), endings.end),
        "memory.change": Handler(partial(change_memory.run, embedder.embed), endings.end),
        "memory.remember": Handler(partial(remember_turns.run, throttled_embed, runner.settings), plain_ending),
        "memory.extract": Handler(partial(extract_facts.run, throttled_embed, runner.settings), plain_ending),
        "memory.forget": Handler(forget_memories.run, plain_ending),
        "memory.import": Handler(partial(import_file.run, throttled_embed, objects), plain_ending),
        "memory.reindex": Handler(partial(reindex.run, throttled_embed), plain_ending),
        "meditation.run": Handler(partial(meditate.run, runner.settings, throttled_embed), meditate.end),
    }
    for kind, handler in handlers.items():
        runner.declare(kind, handler)
    return THREADS
