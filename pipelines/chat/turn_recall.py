"""Recall in a worker that answers turns: with an embedder beside the engine, and never for long."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from models.platform.database import Database
from models.turns.responses import Response
from pipelines.memory.recall import Hit, Query, recall
from pipelines.memory.recall_counter import RecallCounter
from pipelines.memory.store import Embed

log = logging.getLogger(__name__)

#: Seconds that recall may take. It takes some 15 ms; an embedder that has still to be loaded 100 more.
TIMEOUT = 0.5

#: Candidates of either way: a turn needs few memories, and soon. A search looks at more.
CANDIDATES = 40

#: Vectors of questions that a process keeps: a turn that calls functions asks the same several times.
CACHED_VECTORS = 256


class TurnRecall:
    """Finds what a user's memories say to a question. `load` loads the embedder, when the first user comes who has any.

    threads  how many may ask at once
    """

    def __init__(self, load: Callable[[], Embed], noting: RecallCounter, threads: int) -> None:
        self._load = load
        self._noting = noting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="recall")
        self._lock = Lock()
        self._embed: Embed | None = None
        self._known: OrderedDict[str, list[float]] = OrderedDict()

    def __call__(self, database: Database, response: Response, question: str, limit: int) -> list[Hit]:
        """The best hits, the best first. None where it fails or takes too long: a turn goes on without memories."""
        assert response.user_id is not None
        asked = Query(question, limit, candidates=CANDIDATES)
        found = self._pool.submit(recall, database, self._vectors, response.account_id, response.user_id, asked)
        try:
            return found.result(TIMEOUT)
        except Exception as error:  # noqa: BLE001 - whatever it is
            log.warning("%s goes on without memories: %r", response.id, error)
            return []

    def count_used(self, ids: Sequence[str]) -> None:
        """These went into a prompt."""
        self._noting.add(ids)

    def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        with self._lock:
            if self._embed is None:
                self._embed = self._load()
        return [self._vector(self._embed, text) for text in texts]

    def _vector(self, embed: Embed, text: str) -> list[float]:
        found = self._known.get(text)
        if found is None:
            (found,) = embed([text])
            with self._lock:
                self._known[text] = found
                if len(self._known) > CACHED_VECTORS:
                    self._known.popitem(last=False)
        return found
