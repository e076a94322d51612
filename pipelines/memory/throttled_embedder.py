"""Throttle background embedding while interactive work runs.

Thread priorities would not do: where Linux groups processes by session (autogroup, as on most desktops), priorities
apply within a session only, and each Postgres connection has a session of its own. A low-priority thread would also
hold the interpreter lock for longer. So texts are embedded a few at a time, with pauses while other processes keep
the machine busy.
"""

import time
from collections import deque
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


class FairLock:
    """A lock that is granted in the order of arrival.

    The thread that releases a `threading.Lock` usually gets it again: the slices of a long job would leave no turn to
    the single text of another.
    """

    def __init__(self) -> None:
        self._mutex = Lock()
        self._held = False
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # until the holder passes the lock on

    def __exit__(self, *exception: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    @property
    def waiting(self) -> int:
        """The number of threads that wait."""
        with self._mutex:
            return len(self._waiting)


class ThrottledEmbedder:
    """Embeds texts in the background. Thread-safe: one slice runs at a time, in turns.

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
        self._lock = FairLock()

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
