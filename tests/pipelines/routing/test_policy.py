"""Which turns leave, in which order, and when they come back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from models.serving.forecast import wait_behind
from models.serving.moves import MAX_MOVES
from models.serving.queued_turns import QueuedTurn
from models.serving.state import QueueState
from pipelines.routing.policy import Situation, choose_spills, returning, should_return

IDLE = QueueState(threads=16, mean_seconds=1.0)
BUSY = QueueState(threads=1, running=1, mean_seconds=4.0)


def turn(name, **fields):
    values = {"age": 0.0, "in_queue": None, "since_move": None, "attempts": 0, "moves": 0, "may_leave": True}
    return QueuedTurn(name, **{**values, **fields})


def chosen(situation, *turns):
    return [each.id for each in choose_spills(situation, turns)]


def test_turns_leave_from_where_the_wait_is_too_long():
    # Given a slot that ends a turn every four seconds, and a limit of ten
    situation = Situation(BUSY, IDLE, spill_after=10)

    # Then the first two begin in time, after 4 and 8 seconds; the others would wait behind these
    assert chosen(situation, *map(turn, "abcde")) == ["c", "d", "e"]


def test_the_time_that_a_turn_has_waited_counts():
    assert chosen(Situation(BUSY, IDLE, spill_after=10), turn("a", age=7.0), turn("b")) == ["a"]


def test_turns_that_may_not_leave_keep_their_places():
    situation = Situation(BUSY, IDLE, spill_after=10)

    assert chosen(situation, *(turn(name, may_leave=name in "df") for name in "abcdef")) == ["d", "f"]


def test_nothing_leaves_for_an_endpoint_without_a_worker():
    assert chosen(Situation(BUSY, QueueState(), spill_after=0), turn("a", age=99.0)) == []


def test_a_turn_that_a_free_thread_takes_does_not_leave_even_if_it_is_old():
    # Given a turn that became due with the end of the one before it in its conversation
    situation = Situation(QueueState(threads=1, mean_seconds=4.0), IDLE, spill_after=10)

    assert chosen(situation, turn("a", age=99.0, in_queue=0.1)) == []
    assert chosen(situation, turn("a", age=99.0, in_queue=11.0)) == ["a"]


def test_without_a_worker_turns_leave_after_the_limit_and_at_once_while_the_outage_lasts():
    down = Situation(QueueState(mean_seconds=4.0), IDLE, spill_after=10)

    assert chosen(down, turn("a", age=11.0), turn("b", age=1.0)) == ["a"]
    assert chosen(replace(down, home_down=True), turn("a", age=11.0), turn("b", age=1.0)) == ["a", "b"]


def test_a_turn_that_was_begun_leaves_only_while_there_is_no_worker():
    begun = turn("a", age=99.0, attempts=1)

    assert chosen(Situation(BUSY, IDLE, spill_after=10), begun) == []
    assert chosen(Situation(QueueState(), IDLE, spill_after=10, home_down=True), begun) == ["a"]
    assert chosen(Situation(QueueState(), IDLE, spill_after=10, home_down=True), replace(begun, age=9.0)) == []


def test_a_turn_that_came_back_waits_before_it_leaves_again_and_stays_in_the_end():
    situation = Situation(BUSY, IDLE, spill_after=10)
    back = turn("b", age=99.0, moves=2, since_move=9.0)

    assert chosen(situation, turn("a"), back) == []
    assert chosen(situation, turn("a"), replace(back, since_move=11.0)) == ["b"]
    assert chosen(situation, turn("a"), replace(back, since_move=11.0, moves=MAX_MOVES - 1)) == []


def test_no_more_turns_leave_than_the_endpoint_begins_earlier():
    # Given an endpoint with two threads that is as slow
    away = QueueState(threads=2, mean_seconds=4.0)

    # Then the last turns stay: at the endpoint they would wait as long
    leaving = choose_spills(Situation(BUSY, away, spill_after=4), [turn(str(n)) for n in range(20)])
    assert leaving
    assert wait_behind(away, len(leaving) - 1) < wait_behind(BUSY, 20 - len(leaving))


def test_turns_come_back_until_the_waits_are_alike():
    crowded = QueueState(threads=1, running=1, waiting=40, mean_seconds=1.0)
    situation = Situation(QueueState(threads=1, running=1, waiting=2, mean_seconds=1.0), crowded, spill_after=10)

    count = returning(situation)

    assert 0 < count < 40
    assert not should_return(
        replace(
            situation,
            home=replace(situation.home, waiting=2 + count),
            away=replace(crowded, waiting=40 - count),
        )
    )


def test_turns_do_not_come_back_to_a_model_without_a_worker():
    assert not should_return(Situation(QueueState(), replace(IDLE, waiting=500, running=16), spill_after=10))


states = st.builds(
    QueueState, threads=st.integers(0, 8), waiting=st.integers(0, 40), running=st.integers(0, 8),
    mean_seconds=st.none() | st.floats(0.01, 30),
)  # fmt: skip
turns = st.builds(
    QueuedTurn, id=st.uuids().map(str), age=st.floats(0, 60), in_queue=st.none() | st.floats(0, 60),
    since_move=st.none() | st.floats(0, 60), attempts=st.integers(0, 2), moves=st.integers(0, 4),
    may_leave=st.booleans(),
)  # fmt: skip


@given(st.builds(Situation, states, states, st.floats(0, 30), st.booleans()), st.lists(turns, max_size=30))
def test_only_turns_that_may_leave_are_chosen_in_their_order(situation, waiting):
    leaving = choose_spills(situation, waiting)

    assert all(each.may_leave and each.moves < MAX_MOVES - 1 for each in leaving)
    assert leaving == [each for each in waiting if each in leaving]


@given(states, states, st.floats(0, 30))
def test_what_comes_back_does_not_leave_again_at_once(home, away, spill_after):
    count = returning(Situation(home, away, spill_after))

    assert count <= away.waiting
