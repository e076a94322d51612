"""The actors of the memory pool. The embedder is loaded here, before any claim: that takes 0.1 s."""

from functools import partial

from models.running import Handler, plain_ending
from pipelines.embeddings import embed
from pipelines.inference.embedder import load_embedder
from tasks.workshop import Workshop

#: Jobs side by side: a short list need not wait for a long one. They share the embedder's one thread.
THREADS = 2


def declare(workshop: Workshop) -> int:
    """Declare the actors; returns how many may run at once."""
    embedder = load_embedder(workshop.settings)
    workshop.declare("embedding.create", Handler(run=partial(embed.run, embedder), end=plain_ending))
    return THREADS
