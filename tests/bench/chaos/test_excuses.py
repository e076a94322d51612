"""Given a promoted standby that lacks commits, when work was under way meanwhile, then only that is excused."""

import pytest

from bench.chaos.excuses import keys_during
from bench.chaos.transcripts import ClientTranscript, Period, WorkKind

LOST = [Period(100.0, 102.0)]


def work(key: str, began: float, ended: float | None, kind: WorkKind = "turn", **request: object) -> ClientTranscript:
    return ClientTranscript(kind, "client", "acct_1", key, request, began, id=f"id_of_{key}", ended=ended)


@pytest.mark.parametrize(
    ("began", "ended", "excused"),
    [(90, 99, False), (90, 100.5, True), (101, 101.5, True), (90, None, True), (103, 104, False), (103, None, False)],
)
def test_work_is_excused_where_it_overlaps_with_the_lost_commits(began: float, ended: float | None, excused: bool):
    assert keys_during([work("a", began, ended)], LOST) == (frozenset("a") if excused else frozenset())


def test_the_turns_of_a_lost_conversation_are_excused():
    transcripts = [
        work("a", 101, 101.2, "listing"),
        work("b", 103, 104, conversation="id_of_a"),
        work("c", 103, 104, conversation="id_of_d"),
    ]

    assert keys_during(transcripts, LOST) == {"a", "b"}


def test_nothing_is_excused_without_lost_commits():
    assert not keys_during([work("a", 0, None)], [])
