"""Candidates are ranked by a weighted sum of similarity, terms, neighbours, speaker, period and form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from pipelines.memory import fusion
from pipelines.memory.fusion import (
    LATE_MENTION,
    NO_NEIGHBOUR,
    NOT_A_CANDIDATE,
    SUBSTANTIAL_TERMS,
    Candidates,
    RankedCandidate,
)
from pipelines.memory.terms import ParsedQuery

NOW = datetime(2026, 5, 4, tzinfo=UTC)
MAY = (datetime(2023, 5, 1, tzinfo=UTC), datetime(2023, 6, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Candidate:
    """A row of `Candidates`, with the ids of its neighbours."""

    id: str
    previous: str | None = None
    next: str | None = None
    speaker: str = "Ann"
    occurred_at: datetime = datetime(2023, 1, 1, tzinfo=UTC)
    dense: float = 0.4
    lexical: float = 0.2
    is_question: bool = False
    importance: float = 0.5
    term_count: int = SUBSTANTIAL_TERMS


PLAIN = Candidate("plain")
QUERY = ParsedQuery("what?", ["what"])


def rank(candidates: Sequence[Candidate], query: ParsedQuery, now: datetime, **options: Any) -> list[RankedCandidate]:
    ids = [candidate.id for candidate in candidates]
    rows = {None: NO_NEIGHBOUR} | {name: row for row, name in enumerate(ids)}
    table = Candidates(
        ids=ids,
        previous=np.array([rows.get(candidate.previous, NOT_A_CANDIDATE) for candidate in candidates], dtype=np.int64),
        next=np.array([rows.get(candidate.next, NOT_A_CANDIDATE) for candidate in candidates], dtype=np.int64),
        speakers=[candidate.speaker for candidate in candidates],
        occurred_at=np.array([candidate.occurred_at.timestamp() for candidate in candidates]),
        dense=np.array([candidate.dense for candidate in candidates]),
        lexical=np.array([candidate.lexical for candidate in candidates]),
        is_question=np.array([candidate.is_question for candidate in candidates], dtype=bool),
        importance=np.array([candidate.importance for candidate in candidates]),
        term_counts=np.array([candidate.term_count for candidate in candidates], dtype=float),
    )
    return fusion.rank(table, query, now, **options)


def first_id(*candidates: Candidate, query: ParsedQuery = QUERY) -> str:
    return rank(candidates, query, NOW)[0].id


@pytest.mark.parametrize(
    "worse",
    [
        {"dense": 0.3},
        {"lexical": 0.0},
        {"is_question": True},
        {"term_count": 2},
        {"importance": 0.1},
        {"occurred_at": PLAIN.occurred_at - timedelta(days=90)},
    ],
)
def test_candidate_that_is_worse_in_one_part_ranks_lower(worse: dict[str, object]) -> None:
    recent = replace(PLAIN, occurred_at=NOW) if "occurred_at" in worse else PLAIN
    assert first_id(replace(recent, id="a", **worse), replace(recent, id="b")) == "b"  # type: ignore[arg-type]


def test_answer_gains_from_the_question_before_it() -> None:
    asked = replace(PLAIN, id="asked", dense=0.7, is_question=True, term_count=3, next="answer")
    answer = replace(PLAIN, id="answer", dense=0.1, lexical=0.0, previous="asked", next="after")
    after = replace(PLAIN, id="after", dense=0.1, lexical=0.0, previous="answer")
    elsewhere = replace(PLAIN, id="elsewhere", dense=0.2, lexical=0.0, previous="gone", next="gone")
    ids = [hit.id for hit in rank([elsewhere, after, answer, asked], QUERY, NOW)]
    assert ids == ["asked", "answer", "after", "elsewhere"]


def test_candidate_without_neighbours_ranks_above_one_whose_neighbours_are_no_candidates() -> None:
    assert first_id(PLAIN, replace(PLAIN, id="between", previous="gone", next="gone")) == "plain"


def test_named_speaker_and_period_rank_first() -> None:
    other = replace(PLAIN, id="other", speaker="Ben", dense=0.5)
    assert first_id(PLAIN, other) == "other"
    assert first_id(PLAIN, other, query=replace(QUERY, speakers=frozenset({"Ann"}))) == "plain"
    in_may = replace(PLAIN, id="may", occurred_at=MAY[1] - timedelta(seconds=1), dense=0.3)
    shortly_after = replace(in_may, id="later", occurred_at=MAY[1] + LATE_MENTION / 2)
    long_after = replace(in_may, id="long after", occurred_at=MAY[1] + LATE_MENTION)
    ids = [hit.id for hit in rank([long_after, shortly_after, in_may], replace(QUERY, period=MAY), NOW)]
    assert ids == ["may", "later", "long after"]


def test_score_is_the_sum_of_its_parts_and_ties_are_ordered_by_id() -> None:
    hits = rank([replace(PLAIN, id=name) for name in "cab"], QUERY, NOW)
    assert [hit.id for hit in hits] == ["a", "b", "c"]
    assert {"dense", "lexical", "recency", "importance"} < hits[0].parts.keys()
    assert sum(hits[0].parts.values()) == pytest.approx(hits[0].score)
    assert rank([], QUERY, NOW) == []


def test_future_memory_and_cycle_of_neighbours_have_bounded_scores() -> None:
    cycle = replace(PLAIN, occurred_at=NOW + timedelta(days=400), previous="plain", next="plain")
    assert 0 < rank([cycle], QUERY, NOW)[0].score < 3


def test_limit_applies_to_passing_candidates_and_ties_at_the_limit_are_ordered_by_id() -> None:
    better = replace(PLAIN, id="better", dense=0.5)
    candidates = [*(replace(PLAIN, id=name) for name in "dcba"), better, replace(better, id="filtered", dense=0.9)]
    passing = np.array([candidate.id != "filtered" for candidate in candidates])
    for limit in range(8):
        hits = rank(candidates, QUERY, NOW, passing=passing, limit=limit)
        assert [hit.id for hit in hits] == ["better", "a", "b", "c", "d"][:limit]
