"""Embedding that nobody waits for makes way for those who are waited for.

Priorities of threads would not do it: where Linux groups processes by session, as on most desktops, they count within a
session only, and Postgres has one of its own for each connection. A thread that seldom runs would also hold the
interpreter for longer. So this embeds a few texts at a time, and while others keep the machine busy it rests between.
"""

import time
from collections.abc import Callable, Sequence
from threading import Lock

from pipelines.inference.machine import Others
from pipelines.memory.store import Embed

#: Texts between two rests: some 50 ms of embedding.
SLICE_TEXTS = 8

#: The share of the machine above which others are let go first: the embedder takes half of the cores.
BUSY_SHARE = 0.5

#: How many times as long as it has worked it rests, and the longest rest in seconds.
PAUSE_FACTOR, MAX_PAUSE = 5, 0.5


class ThrottledEmbedder:
    """An embedder's `embed` for work in the background. From many threads: one slice at a time."""

    def __init__(
        self, embed: Embed, others: Callable[[float], float] | None = None, rest: Callable[[float], object] = time.sleep
    ) -> None:
        self._embed = embed
        self._others = others or Others().share
        self._rest = rest
        self._took = 0.0
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order. Raises EngineError."""
        vectors: list[list[float]] = []
        for begin in range(0, len(texts), SLICE_TEXTS):
            with self._lock:
                vectors += self._slice(texts[begin : begin + SLICE_TEXTS])
        return vectors

    def _slice(self, texts: Sequence[str]) -> list[list[float]]:
        if self._others(self._took) > BUSY_SHARE:
            self._rest(min(PAUSE_FACTOR * self._took, MAX_PAUSE))
        began = time.monotonic()
        vectors = self._embed(texts)
        self._took = time.monotonic() - began
        return vectors
