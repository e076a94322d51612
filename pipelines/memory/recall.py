"""Recall: rank the memories of a space for a query. No language model takes part.

Candidates are the nearest by vector (`memory_vectors`) and the best by lexical terms (`postings`), of all memories and
of the period that the query names, each with the turns around it; `fusion` ranks them. The number of statements does
not depend on the size of the space. In a small space all memories are candidates.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from models.memory import memories, passages, postings, recall_queries, spaces, vector_search
from models.memory.memories import Filters, Memory
from models.memory.postings import Postings
from models.memory.recall_queries import CandidateRows, Neighbours, Ordinals
from models.memory.spaces import Space, SpaceKey
from models.platform import span_names, tracing
from models.platform.database import Connection, Database
from models.platform.metrics import RECALL_DURATION, observe
from pipelines.memory import fusion, terms
from pipelines.memory.fusion import NO_NEIGHBOUR, NOT_A_CANDIDATE, Candidates
from pipelines.memory.passage_matches import PassageMatches, read_passages
from pipelines.memory.store import Embed
from pipelines.memory.terms import ParsedQuery

Scores = NDArray[np.float64]

#: Candidates by vector and by terms each: of all memories, and of the period that a query names.
CANDIDATES_PER_METHOD, CANDIDATES_IN_PERIOD = 100, 50

#: Turns on each side that contribute to a candidate's score.
NEIGHBOUR_REACH = 2

#: The most live memories of a space that are all ranked: selecting candidates among so few would take longer.
MAX_RANKED_WHOLE = 200


@dataclass(frozen=True, slots=True)
class Query:
    """A recall query.

    limit       the most hits
    neighbours  whether each hit comes with the turns before and after it
    candidates  how many of each method are ranked; fewer are faster, and enough for few hits
    """

    text: str
    limit: int = 10
    filters: Filters = field(default_factory=Filters)
    neighbours: bool = False
    candidates: int = CANDIDATES_PER_METHOD


@dataclass(frozen=True, slots=True)
class Hit:
    """A recalled memory with its score, the parts of the score, and the turns directly before and after it.

    passage  the first character and the length of the part of a long memory that matches best
    """

    memory: Memory
    score: float
    parts: Mapping[str, float]
    neighbours: Sequence[Memory] = ()
    passage: tuple[int, int] | None = None


def recall(database: Database, embed: Embed, key: SpaceKey, query: Query, now: datetime | None = None) -> list[Hit]:
    """Return the best hits among the memories of a space, in descending order. Raises EngineError."""
    began = time.perf_counter()
    with database.connection() as connection:
        found = spaces.find_with_speakers(connection, key)
    if found is None or not found[0].live:
        return []
    space, speakers = found
    now = now or datetime.now(UTC)
    earlier = space.term_version < terms.CURRENT or space.reindex_below > 0
    parsed = terms.parse_query(query.text, speakers, now, earlier=earlier)
    with tracing.span(span_names.RECALL) as span:
        hits = RecallSearch(database, embed, space, query, parsed).hits(now)
        span.set(span_names.MEMORIES, len(hits))
    observe(RECALL_DURATION, time.perf_counter() - began)
    return hits


class RecallSearch:
    """The execution of one query on one space."""

    def __init__(self, database: Database, embed: Embed, space: Space, query: Query, parsed: ParsedQuery) -> None:
        self._database = database
        self._space = space
        self._query = query
        self._parsed = parsed
        self._vector = embed([parsed.text or query.text])[0]
        self._lexical = np.zeros(0)  # by ordinal
        self._passages: PassageMatches | None = None

    def hits(self, now: datetime) -> list[Hit]:
        """Select candidates, rank them and read the hits."""
        allowed = self._matching(self._query.filters) if self._query.filters.any else None
        whole = self._space.live <= MAX_RANKED_WHOLE
        rows, neighbours = self._read_all() if whole else self._read_candidates(allowed)
        # Neighbours count for a score although they may not pass the filters, but are no hits then.
        passing = None if allowed is None else np.isin(rows.ordinals, allowed)
        candidates = _to_candidates(rows, neighbours, self._lexical, self._passages)
        return self._read_hits(fusion.rank(candidates, self._parsed, now, passing=passing, limit=self._query.limit))

    def _read_all(self) -> tuple[CandidateRows, Neighbours]:
        """Read all memories of a small space."""
        with self._database.connection() as connection:
            contents = recall_queries.read_space(connection, self._space.id, self._vector, self._parsed.all_forms)
            self._score_terms(connection, contents.postings)
        return contents.seen, contents.around

    def _read_candidates(self, allowed: Ordinals | None) -> tuple[CandidateRows, Neighbours]:
        """Read the candidates of both methods, with the turns around each."""
        with self._database.connection() as connection:
            self._score_terms(connection, postings.read(connection, self._space.id, self._parsed.all_forms))
        ordinals = self._select_candidates(allowed)
        with self._database.connection() as connection:
            neighbours = recall_queries.read_neighbours(connection, self._space.id, ordinals, NEIGHBOUR_REACH)
            extended = sorted(neighbours.around(ordinals, NEIGHBOUR_REACH))
            return recall_queries.read_candidates(connection, self._space.id, extended, self._vector), neighbours

    def _score_terms(self, connection: Connection, postings_by_form: Mapping[str, Postings]) -> None:
        """Compute each memory's BM25 score for the query's terms, by ordinal, and read the passages."""
        space, parsed = self._space, self._parsed
        entries = {term: _best_forms(postings_by_form, [term, *parsed.forms.get(term, ())]) for term in parsed.terms}
        frequencies = {term: int(np.count_nonzero(found.ordinals >= 0)) for term, found in entries.items()}
        shares = terms.idf_shares(parsed.terms, space.live, frequencies)
        scores, passage_scores = np.zeros(space.next_ordinal), np.zeros(space.next_passage)
        for term, found in entries.items():
            is_memory = found.ordinals >= 0
            scores = _add(scores, found.ordinals[is_memory], shares[term] * found.weights[is_memory])
            numbers = passages.posting_ordinal(found.ordinals[~is_memory])
            passage_scores = _add(passage_scores, numbers, shares[term] * found.weights[~is_memory])
        self._lexical = scores
        if space.next_passage:
            self._passages = read_passages(connection, space, self._vector, passage_scores)
            self._lexical = self._passages.raise_lexical(scores)

    def _matching(self, filters: Filters) -> Ordinals:
        with self._database.connection() as connection:
            return recall_queries.matching_ordinals(connection, self._space.id, filters)

    def _select_candidates(self, allowed: Ordinals | None) -> list[int]:
        """Return the ordinals of the best by vector and by terms."""
        selected = [
            *self._nearest(allowed, self._query.candidates),
            *top_ordinals(self._lexical, allowed, self._query.candidates),
            *(top_ordinals(self._passages.dense, allowed, self._query.candidates) if self._passages else ()),
        ]
        if (in_period := self._filters_in_period()) is not None:
            ordinals = self._matching(in_period)
            selected += self._nearest(ordinals, CANDIDATES_IN_PERIOD)
            selected += top_ordinals(self._lexical, ordinals, CANDIDATES_IN_PERIOD)
        return list(dict.fromkeys(selected))

    def _filters_in_period(self) -> Filters | None:
        """Return the query's filters, narrowed to the period that it names; None if it names none."""
        if self._parsed.period is None:
            return None
        filters, (start, end) = self._query.filters, self._parsed.period
        after = max(start, filters.after) if filters.after else start
        before = min(end, filters.before) if filters.before else end
        return Filters(filters.kind, filters.speaker, filters.conversation_id, after, before, filters.metadata)

    def _nearest(self, allowed: Ordinals | None, limit: int) -> list[int]:
        """Return the ordinals of the nearest vectors, the nearest first."""
        if allowed is not None and not len(allowed):
            return []
        with self._database.connection() as connection:
            matches = vector_search.nearest(connection, self._space, self._vector, limit, allowed)
        return [ordinal for ordinal, _ in matches]

    def _read_hits(self, ranked: Sequence[fusion.RankedCandidate]) -> list[Hit]:
        """Read the hits' memories and, on request, their neighbours."""
        if not ranked:
            return []
        with self._database.connection() as connection:
            ids = [candidate.id for candidate in ranked]
            found = {memory.id: memory for memory in memories.read_many(connection, ids, self._space.key)}
            hits = [self._hit(found[each.id], each) for each in ranked if each.id in found]
            if not self._query.neighbours:
                return hits
            ordinals = [hit.memory.ordinal for hit in hits]
            neighbours = recall_queries.read_neighbours(connection, self._space.id, ordinals, 1)
            rows = memories.read_by_ordinal(connection, self._space.id, sorted(neighbours.around(ordinals, 1)))
        by_ordinal = {row.ordinal: row for row in rows}
        return [replace(hit, neighbours=_adjacent(hit.memory.ordinal, neighbours, by_ordinal)) for hit in hits]

    def _hit(self, memory: Memory, ranked: fusion.RankedCandidate) -> Hit:
        passage = self._passages.best(memory.ordinal) if self._passages else None
        return Hit(memory, ranked.score, ranked.parts, passage=passage)


def _add(scores: Scores, ordinals: Ordinals, amounts: Scores) -> Scores:
    """Add amounts to the scores of ordinals, each of which occurs once; those written since the space was read too."""
    if len(ordinals) and (last := int(ordinals.max())) >= len(scores):
        scores = np.concatenate([scores, np.zeros(last + 1 - len(scores))])
    scores[ordinals] += amounts
    return scores


def _best_forms(postings_by_form: Mapping[str, Postings], forms: Sequence[str]) -> Postings:
    """Join the postings of the forms of a term: a memory has the greatest of their weights."""
    found = [postings_by_form[form] for form in forms if form in postings_by_form]
    if len(found) == 1:
        return found[0]
    if not found:
        return Postings(np.zeros(0, dtype=np.int64), np.zeros(0))
    ordinals, rows = np.unique(np.concatenate([each.ordinals for each in found]), return_inverse=True)
    weights = np.zeros(len(ordinals))
    np.maximum.at(weights, rows, np.concatenate([each.weights for each in found]))
    return Postings(ordinals, weights)


def top_ordinals(scores: Scores, allowed: Ordinals | None, limit: int) -> list[int]:
    """Return the ordinals with the highest scores above 0, in descending order; equal ones in their order."""
    if allowed is not None:
        masked = np.zeros_like(scores)
        known = allowed[allowed < len(scores)]
        masked[known] = scores[known]
        scores = masked
    ordinals = np.flatnonzero(scores)
    if len(ordinals) > limit:
        # Keep all that tie with the last one: the stable sort below then selects the earliest of them.
        lowest = np.partition(scores[ordinals], -limit)[-limit]
        ordinals = ordinals[scores[ordinals] >= lowest]
    order = np.argsort(-scores[ordinals], kind="stable")[:limit]
    return [int(ordinal) for ordinal in ordinals[order]]


def _to_candidates(
    rows: CandidateRows, neighbours: Neighbours, lexical: Scores, matches: PassageMatches | None
) -> Candidates:
    """Join rows, neighbours and lexical scores; a memory written after the postings were read scores 0 lexically."""
    scored = rows.ordinals < len(lexical)
    return Candidates(
        ids=rows.ids,
        previous=_neighbour_rows(rows.ordinals, neighbours.previous),
        next=_neighbour_rows(rows.ordinals, neighbours.following),
        speakers=rows.speakers,
        occurred_at=rows.occurred_at,
        dense=matches.raise_dense(rows) if matches else rows.dense,
        lexical=np.where(scored, lexical[np.where(scored, rows.ordinals, 0)], 0.0),
        is_question=rows.asks,
        importance=rows.importance,
        term_counts=rows.words,
    )


def _neighbour_rows(ordinals: Ordinals, side: Mapping[int, int]) -> NDArray[np.int64]:
    """Return, for each row, the row of its neighbour on one side."""
    listed = ordinals.tolist()
    row_of = {ordinal: row for row, ordinal in enumerate(listed)}
    rows = [row_of.get(side[ordinal], NOT_A_CANDIDATE) if ordinal in side else NO_NEIGHBOUR for ordinal in listed]
    return np.array(rows, dtype=np.int64)


def _adjacent(ordinal: int, neighbours: Neighbours, by_ordinal: Mapping[int, Memory]) -> list[Memory]:
    """Return the memories directly before and after one."""
    sides: list[Callable[[int, int], int]] = [neighbours.previous.get, neighbours.following.get]
    return [by_ordinal[other] for side in sides if (other := side(ordinal, -1)) in by_ordinal]
