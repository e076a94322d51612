"""The actors of the memory pool. The embedder is loaded here, before any claim: that takes 0.1 s."""

from functools import partial

from models.jobs.attempt_context import Handler, plain_ending
from models.platform.object_store import Objects
from pipelines.embeddings import embed
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.memory import endings
from pipelines.memory import remember_turns
from pipelines.memory import import_file
from pipelines.memory import forget_memories
from pipelines.memory import create_memories
from pipelines.memory import extract_facts
from pipelines.memory.meditation import run as meditate
from pipelines.memory.throttled_embedder import Yielding
from tasks.job_runner import JobRunner

#: Jobs side by side: a short list need not wait for a long one. They share the embedder's one thread.
THREADS = 2


def declare(runner: JobRunner) -> int:
    """Declare the actors; returns how many may run at once."""
    embedder = load_embedder(runner.settings)
    in_background = Yielding(embedder.embed)
    objects = Objects.open(runner.settings)
    runs = {
        "embedding.create": Handler(partial(embed.run, embedder), plain_ending),
        "memory.create": Handler(partial(create_memories.run_create, embedder.embed), endings.end),
        "memory.change": Handler(partial(forget_memories.run_change, embedder.embed), endings.end),
        "memory.remember": Handler(partial(remember_turns.run, in_background, runner.settings), plain_ending),
        "memory.extract": Handler(partial(extract_facts.run, in_background, runner.settings), plain_ending),
        "memory.forget": Handler(forget_memories.run_forgetting, plain_ending),
        "memory.import": Handler(partial(import_file.run, in_background, objects), plain_ending),
        "meditation.run": Handler(partial(meditate.run, runner.settings, in_background), meditate.end),
    }
    for kind, handler in runs.items():
        runner.declare(kind, handler)
    return THREADS
