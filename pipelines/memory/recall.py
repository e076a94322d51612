"""Recall: what a user's memories say to a question. No language model takes part.

Candidates are the best by meaning (`memory_vectors`) and the best by words (`postings`), and where the question names a
time the best within it, each with the turns next to it; `fusion` ranks them. Few statements, whatever there is. Of a
small space all are candidates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from models.memory import memories, postings, recall_queries, spaces, vectors
from models.memory.memories import Filters, Memory
from models.memory.postings import Postings
from models.memory.recall_queries import CandidateRows, Neighbours, Ordinals
from models.memory.spaces import Space
from models.memory.vector_indexes import MOST
from models.platform.database import Database
from pipelines.memory import fusion, terms
from pipelines.memory.fusion import NO_NEIGHBOUR, NOT_A_CANDIDATE, Candidates
from pipelines.memory.store import Embed
from pipelines.memory.terms import ParsedQuery

#: Candidates by meaning and by words each: of all memories, and of the time that a question names.
CANDIDATES_PER_METHOD, CANDIDATES_IN_PERIOD = 100, 50

#: Turns on each side that lend a candidate something.
NEIGHBOUR_REACH = 2

#: Live memories up to which all are candidates: looking for the best of so few would take longer.
RANK_ALL_BELOW = 200


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: at most `limit` hits; `neighbours` asks for the turns next to each as well.

    width  how many candidates of either way are ranked: who needs few hits soon looks at fewer
    """

    text: str
    limit: int = 10
    filters: Filters = field(default_factory=Filters)
    neighbours: bool = False
    candidates: int = CANDIDATES_PER_METHOD


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that answers, with its score, what that is made of, and what was said just before and after."""

    memory: Memory
    score: float
    parts: Mapping[str, float]
    neighbours: Sequence[Memory] = ()


def recall(
    database: Database, embed: Embed, account_id: str, user_id: str, query: Query, now: datetime | None = None
) -> list[Hit]:
    """The best hits among a user's memories in an account, the best first. Raises EngineError."""
    with database.connection() as connection:
        found = spaces.find_with_speakers(connection, account_id, user_id)
    if found is None or not found[0].live:
        return []
    space, speakers = found
    question = terms.parse_query(query.text, speakers)
    return RecallSearch(database, embed, space, query, question).hits(now or datetime.now(UTC))


class RecallSearch:
    """One question to one space."""

    def __init__(self, database: Database, embed: Embed, space: Space, query: Query, question: ParsedQuery) -> None:
        self._database = database
        self._space = space
        self._query = query
        self._question = question
        self._vector = embed([question.text or query.text])[0]
        self._lexical = np.zeros(0)

    def hits(self, now: datetime) -> list[Hit]:
        """What `fusion` makes of the candidates."""
        allowed = self._matching(self._query.filters) if self._query.filters.any else None
        seen, around = self._every() if self._space.live <= RANK_ALL_BELOW else self._likely(allowed)
        # Neighbours count for a score whoever they are, but are no hits where they don't pass the filters.
        passing = None if allowed is None else np.isin(seen.ordinals, allowed)
        candidates = _candidates(seen, around, self._lexical)
        return self._told(fusion.rank(candidates, self._question, now, passing=passing, limit=self._query.limit))

    def _every(self) -> tuple[CandidateRows, Neighbours]:
        """All there is."""
        with self._database.connection() as connection:
            whole = recall_queries.read_space(connection, self._space.id, self._vector, self._question.terms)
        self._lexical = self._weigh(whole.postings)
        return whole.seen, whole.around

    def _likely(self, allowed: Ordinals | None) -> tuple[CandidateRows, Neighbours]:
        """The best by either way, and the turns next to each."""
        with self._database.connection() as connection:
            self._lexical = self._weigh(postings.read(connection, self._space.id, self._question.terms))
        found = self._candidates(allowed)
        with self._database.connection() as connection:
            around = recall_queries.read_neighbours(connection, self._space.id, found, NEIGHBOUR_REACH)
            return recall_queries.read_candidates(
                connection, self._space.id, sorted(around.around(found, NEIGHBOUR_REACH)), self._vector
            ), around

    def _weigh(self, found: Mapping[str, Postings]) -> NDArray[np.float64]:
        """By ordinal, what the question's words are worth in each memory."""
        space, weights = self._space, np.zeros(self._space.next_ordinal)
        frequencies = {term: len(having.ordinals) for term, having in found.items()}
        shares = terms.idf_shares(self._question.terms, space.live, frequencies)
        for term, having in found.items():
            if len(having.ordinals) and (last := int(having.ordinals.max())) >= len(weights):
                weights.resize(last + 1)  # written since the space was read
            weights[having.ordinals] += shares[term] * having.weights
        return weights

    def _matching(self, filters: Filters) -> Ordinals:
        with self._database.connection() as connection:
            return recall_queries.matching_ordinals(connection, self._space.id, filters)

    def _candidates(self, allowed: Ordinals | None) -> list[int]:
        """The ordinals of the best by either way."""
        found = [
            *self._nearest(self._query.filters, allowed, self._query.candidates),
            *top_ordinals(self._lexical, allowed, self._query.candidates),
        ]
        if (within := self._within()) is not None:
            ordinals = self._matching(within)
            found += self._nearest(within, ordinals, CANDIDATES_IN_PERIOD)
            found += top_ordinals(self._lexical, ordinals, CANDIDATES_IN_PERIOD)
        return list(dict.fromkeys(found))

    def _within(self) -> Filters | None:
        """The filters, and the time that the question names."""
        if self._question.period is None:
            return None
        given, (begin, end) = self._query.filters, self._question.period
        after = max(begin, given.after) if given.after else begin
        before = min(end, given.before) if given.before else end
        return Filters(given.kind, given.speaker, given.conversation_id, after, before, given.metadata)

    def _nearest(self, filters: Filters, allowed: Ordinals | None, limit: int) -> list[int]:
        space_id, vector = self._space.id, self._vector
        if allowed is not None and not len(allowed):
            return []
        if allowed is not None and len(allowed) <= MOST:
            with self._database.connection() as connection:
                found = vectors.search_among(connection, space_id, vector, allowed, limit)
        elif self._space.indexed_at is not None:
            with self._database.batch() as connection:
                found = vectors.search_index(connection, space_id, vector, filters, limit)
        else:
            with self._database.connection() as connection:
                found = (
                    vectors.search_exact(connection, space_id, vector, limit)
                    if allowed is None
                    else vectors.search_among(connection, space_id, vector, allowed, limit)
                )
        return [ordinal for ordinal, _ in found]

    def _told(self, best: Sequence[fusion.RankedCandidate]) -> list[Hit]:
        """The hits with their texts and, on request, their neighbours."""
        account_id, user_id = self._space.account_id, self._space.user_id
        if not best:
            return []
        with self._database.connection() as connection:
            found = {row.id: row for row in memories.read_many(connection, [h.id for h in best], account_id, user_id)}
            hits = [Hit(found[hit.id], hit.score, hit.parts) for hit in best if hit.id in found]
            if not self._query.neighbours:
                return hits
            ordinals = [hit.memory.ordinal for hit in hits]
            around = recall_queries.read_neighbours(connection, self._space.id, ordinals, 1)
            rows = memories.read_by_ordinal(connection, self._space.id, sorted(around.around(ordinals, 1)))
        beside = {row.ordinal: row for row in rows}
        return [Hit(hit.memory, hit.score, hit.parts, _beside(hit.memory.ordinal, around, beside)) for hit in hits]


def top_ordinals(weights: NDArray[np.float64], allowed: Ordinals | None, width: int) -> list[int]:
    """The ordinals with the greatest weights above 0, the greatest first."""
    if allowed is not None:
        masked = np.zeros_like(weights)
        inside = allowed[allowed < len(weights)]
        masked[inside] = weights[inside]
        weights = masked
    ordinals = np.flatnonzero(weights)
    if len(ordinals) > width:
        # Those that weigh as much as the last one that fits: the earlier of them come first, whoever asks.
        least = np.partition(weights[ordinals], -width)[-width]
        ordinals = ordinals[weights[ordinals] >= least]
    order = np.argsort(-weights[ordinals], kind="stable")[:width]
    return [int(ordinal) for ordinal in ordinals[order]]


def _candidates(seen: CandidateRows, around: Neighbours, lexical: NDArray[np.float64]) -> Candidates:
    """As `fusion` wants them; what was written after the postings were read has no words yet."""
    known = seen.ordinals < len(lexical)
    return Candidates(
        ids=seen.ids,
        previous=_rows(seen.ordinals, around.previous),
        next=_rows(seen.ordinals, around.following),
        speakers=seen.speakers,
        occurred_at=seen.occurred_at,
        dense=seen.dense,
        lexical=np.where(known, lexical[np.where(known, seen.ordinals, 0)], 0.0),
        is_question=seen.asks,
        importance=seen.importance,
        term_counts=seen.words,
    )


def _rows(ordinals: Ordinals, side: Mapping[int, int]) -> NDArray[np.int64]:
    """By row, the row of the neighbour on one side."""
    told = ordinals.tolist()
    row_of = {ordinal: row for row, ordinal in enumerate(told)}
    rows = [row_of.get(side[ordinal], NOT_A_CANDIDATE) if ordinal in side else NO_NEIGHBOUR for ordinal in told]
    return np.array(rows, dtype=np.int64)


def _beside(ordinal: int, around: Neighbours, beside: Mapping[int, Memory]) -> list[Memory]:
    sides: list[Callable[[int, int], int]] = [around.previous.get, around.following.get]
    return [beside[other] for side in sides if (other := side(ordinal, -1)) in beside]
