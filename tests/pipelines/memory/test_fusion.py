"""The ranking of candidates.

Given candidates of a question, when they are ranked, then likeness and words count, and what stands around a turn, who
said it and when; the parts of a score come to it.
"""

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
    """A row of the candidates; it names its neighbours."""

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
ASKED = ParsedQuery("what?", ["what"])


def rank(candidates: Sequence[Candidate], question: ParsedQuery, now: datetime, **asked: Any) -> list[RankedCandidate]:
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
    return fusion.rank(table, question, now, **asked)


def first(*candidates: Candidate, question: ParsedQuery = ASKED) -> str:
    return rank(candidates, question, NOW)[0].id


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
def test_a_candidate_that_is_worse_in_one_thing_comes_after(worse: dict[str, object]) -> None:
    recent = replace(PLAIN, occurred_at=NOW) if "occurred_at" in worse else PLAIN
    assert first(replace(recent, id="a", **worse), replace(recent, id="b")) == "b"  # type: ignore[arg-type]


def test_an_answer_borrows_from_what_was_asked_before_it() -> None:
    asked = replace(PLAIN, id="asked", dense=0.7, is_question=True, term_count=3, next="answer")
    answer = replace(PLAIN, id="answer", dense=0.1, lexical=0.0, previous="asked", next="after")
    after = replace(PLAIN, id="after", dense=0.1, lexical=0.0, previous="answer")
    elsewhere = replace(PLAIN, id="elsewhere", dense=0.2, lexical=0.0, previous="gone", next="gone")
    ids = [hit.id for hit in rank([elsewhere, after, answer, asked], ASKED, NOW)]
    assert ids == ["asked", "answer", "after", "elsewhere"]


def test_who_has_no_neighbours_stands_above_one_whose_neighbours_say_nothing() -> None:
    assert first(PLAIN, replace(PLAIN, id="between", previous="gone", next="gone")) == "plain"


def test_the_speaker_and_the_time_that_a_question_names_come_first() -> None:
    others = replace(PLAIN, id="other", speaker="Ben", dense=0.5)
    assert first(PLAIN, others) == "other"
    assert first(PLAIN, others, question=replace(ASKED, speakers=frozenset({"Ann"}))) == "plain"
    in_may = replace(PLAIN, id="may", occurred_at=MAY[1] - timedelta(seconds=1), dense=0.3)
    told_later = replace(in_may, id="later", occurred_at=MAY[1] + LATE_MENTION / 2)
    long_after = replace(in_may, id="long after", occurred_at=MAY[1] + LATE_MENTION)
    ids = [hit.id for hit in rank([long_after, told_later, in_may], replace(ASKED, period=MAY), NOW)]
    assert ids == ["may", "later", "long after"]


def test_a_score_is_the_sum_of_its_parts_and_equals_are_in_order_of_their_ids() -> None:
    hits = rank([replace(PLAIN, id=name) for name in "cab"], ASKED, NOW)
    assert [hit.id for hit in hits] == ["a", "b", "c"]
    assert {"dense", "lexical", "recency", "importance"} < hits[0].parts.keys()
    assert sum(hits[0].parts.values()) == pytest.approx(hits[0].score)
    assert rank([], ASKED, NOW) == []


def test_a_memory_from_the_future_and_a_ring_of_neighbours_do_no_harm() -> None:
    ring = replace(PLAIN, occurred_at=NOW + timedelta(days=400), previous="plain", next="plain")
    assert 0 < rank([ring], ASKED, NOW)[0].score < 3


def test_only_the_first_of_those_that_pass_are_told_and_equals_at_the_edge_are_in_order_of_their_ids() -> None:
    better = replace(PLAIN, id="better", dense=0.5)
    candidates = [*(replace(PLAIN, id=name) for name in "dcba"), better, replace(better, id="filtered", dense=0.9)]
    passing = np.array([candidate.id != "filtered" for candidate in candidates])
    for limit in range(8):
        hits = rank(candidates, ASKED, NOW, passing=passing, limit=limit)
        assert [hit.id for hit in hits] == ["better", "a", "b", "c", "d"][:limit]
