"""Throttle background embedding while interactive work runs.

Thread priorities would not do: where Linux groups processes by session (autogroup, as on most desktops), priorities
apply within a session only, and each Postgres connection has a session of its own. A low-priority thread would also
hold the interpreter lock for longer. So texts are embedded a few at a time, with pauses while other processes keep
the machine busy.
"""

import time
from collections.abc import Callable, Sequence
from threading import Lock

from pipelines.inference.machine import CompetingLoad
from pipelines.memory.store import Embed

#: Texts embedded between two pauses: about 50 ms of work.
SLICE_TEXTS = 8

#: The share of the machine's CPU used by others above which this pauses: the embedder itself takes half of the cores.
BUSY_SHARE = 0.5

#: The length of a pause as a multiple of the last slice's duration, and its limit in seconds.
PAUSE_FACTOR, MAX_PAUSE = 5, 0.5


class ThrottledEmbedder:
    """Embeds texts in the background. Thread-safe: one slice runs at a time.

    others_share  the share of the machine's CPU (0 to 1) that others used, given the seconds of this one's last slice
    """

    def __init__(
        self,
        embed: Embed,
        others_share: Callable[[float], float] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._embed = embed
        self._others_share = others_share or CompetingLoad().share
        self._sleep = sleep
        self._slice_seconds = 0.0
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed each text, in order. Raises EngineError."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), SLICE_TEXTS):
            with self._lock:
                vectors += self._embed_slice(texts[start : start + SLICE_TEXTS])
        return vectors

    def _embed_slice(self, texts: Sequence[str]) -> list[list[float]]:
        if self._others_share(self._slice_seconds) > BUSY_SHARE:
            self._sleep(min(PAUSE_FACTOR * self._slice_seconds, MAX_PAUSE))
        started = time.monotonic()
        vectors = self._embed(texts)
        self._slice_seconds = time.monotonic() - started
        return vectors
