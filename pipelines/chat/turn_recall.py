"""Recall memories for turns, with a time limit, in a process with an embedder beside the engine."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock

from models.memory.spaces import SpaceKey
from models.platform.compatibility import Compatibility
from models.platform.database import Database
from models.turns.responses import Response
from pipelines.chat.recalled_memories import SINCE
from pipelines.memory.recall import Hit, Query, recall
from pipelines.memory.recall_counter import RecallCounter
from pipelines.memory.store import Embed

log = logging.getLogger(__name__)

#: Seconds that recall may take. It takes about 15 ms, and 100 more when the embedder has to be loaded.
TIMEOUT = 0.5

#: Candidates of each ranking: a turn needs few memories, and soon. A search considers more.
CANDIDATES = 40

#: Vectors of queries that a process caches: a turn that calls functions recalls by the same query several times.
CACHED_VECTORS = 256


class TurnRecall:
    """Recalls a user's memories by a query. `load` loads the embedder for the first user who has memories.

    threads  recalls that may run at once
    """

    def __init__(
        self, load: Callable[[], Embed], counter: RecallCounter, compatibility: Compatibility, threads: int
    ) -> None:
        self._load = load
        self._counter = counter
        self._compatibility = compatibility
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="recall")
        self._lock = Lock()
        self._embed: Embed | None = None
        self._vector_cache: OrderedDict[str, list[float]] = OrderedDict()

    def __call__(self, database: Database, response: Response, query_text: str, limit: int) -> list[Hit]:
        """Return the best hits, the best first. On an error or a timeout there are none, and the turn continues."""
        key = SpaceKey.of_turn(response)
        assert key is not None
        query = Query(query_text, limit, candidates=CANDIDATES)
        hits = self._pool.submit(copy_context().run, recall, database, self._vectors, key, query)
        try:
            return hits.result(TIMEOUT)
        except Exception as error:  # noqa: BLE001 - any failure of recall
            log.warning("Answering %s without memories: recall failed: %r", response.id, error)
            return []

    def count_used(self, ids: Sequence[str]) -> None:
        """Count these memories as recalled."""
        self._counter.add(ids)

    def keeps_texts(self) -> bool:
        """Return whether events and responses need the texts, because an earlier version may read them."""
        return not self._compatibility.at_least(SINCE)

    def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        with self._lock:
            if self._embed is None:
                self._embed = self._load()
        return [self._vector(self._embed, text) for text in texts]

    def _vector(self, embed: Embed, text: str) -> list[float]:
        vector = self._vector_cache.get(text)
        if vector is None:
            (vector,) = embed([text])
            with self._lock:
                self._vector_cache[text] = vector
                if len(self._vector_cache) > CACHED_VECTORS:
                    self._vector_cache.popitem(last=False)
        return vector
