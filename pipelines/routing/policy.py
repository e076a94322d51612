"""Decide which waiting turns go to an endpoint, and whether those that wait there come back. Reads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.serving.forecast import wait_behind
from models.serving.moves import MAX_MOVES, Reason
from models.serving.queued_turns import QueuedTurn
from models.serving.state import QueueState

#: A turn at an endpoint comes back if its wait there is this many times, and so many seconds, longer than at home. So
#: turns do not swing between two queues whose waits are alike.
HYSTERESIS, MARGIN = 1.5, 1.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on.

    home, away   the queues of the local model and of the endpoint
    spill_after  seconds that a turn waits, or would wait, at most
    home_down    no worker has served the local model for that long
    """

    home: QueueState
    away: QueueState
    spill_after: float
    home_down: bool = False


def choose_spills(situation: Situation, waiting: Sequence[QueuedTurn]) -> list[QueuedTurn]:
    """Return the turns that should leave, in the order in which they would have begun.

    A turn leaves if the time that it has waited, and has to wait yet behind those that stay, passes `spill_after`, and
    the endpoint begins it earlier. Those that may not leave keep their places.
    """
    chosen: list[QueuedTurn] = []
    staying = 0
    if situation.away.threads <= 0:
        return chosen
    for turn in waiting:
        remaining = wait_behind(situation.home, staying)
        if _should_leave(situation, turn, remaining) and _gains(situation, len(chosen), remaining):
            chosen.append(turn)
        else:
            staying += 1
    return chosen


def _should_leave(situation: Situation, turn: QueuedTurn, remaining: float | None) -> bool:
    """Return whether a turn waits too long at home; `remaining` is None where nobody knows how long.

    One that was begun may have a part of its answer. It leaves only if no local worker is there to continue it. One
    that came back waits again before it leaves once more.
    """
    if not turn.may_leave or turn.moves >= MAX_MOVES - 1:
        return False
    after = situation.spill_after
    is_down = situation.home.threads <= 0
    age = turn.age if turn.since_move is None else min(turn.age, turn.since_move)
    if turn.attempts or turn.moves:
        return age > after and (is_down or not turn.attempts)
    if is_down:
        return situation.home_down or age > after
    if remaining is None:
        return age > after
    if remaining == 0:  # a thread is free: it is being claimed, unless its message has been lying there
        return turn.in_queue is not None and turn.in_queue > after
    return age + remaining > after


def _gains(situation: Situation, chosen: int, remaining: float | None) -> bool:
    """Return whether the endpoint begins one more turn earlier than the local model does."""
    away = situation.away
    if away.mean_seconds is None:
        away = replace(away, mean_seconds=situation.home.mean_seconds or 1.0)
    wait = wait_behind(away, away.waiting + chosen)
    return remaining is None or not remaining or (wait is not None and wait < remaining)


def should_return(situation: Situation) -> bool:
    """Return whether turns that wait for the endpoint would begin clearly earlier at home."""
    home, away = situation.home, situation.away
    if away.waiting == 0 or home.threads <= 0:
        return False
    at_home = wait_behind(home, home.waiting)
    if at_home is None:
        return False
    there = wait_behind(away, max(0, away.waiting - 1))
    return there is None or there > HYSTERESIS * at_home + MARGIN


def returning(situation: Situation) -> int:
    """Return how many of the turns that wait for a saturated endpoint should come back: until both waits are alike."""
    count = 0
    while count < situation.away.waiting:
        moved = replace(
            situation,
            home=replace(situation.home, waiting=situation.home.waiting + count),
            away=replace(situation.away, waiting=situation.away.waiting - count),
        )
        if not should_return(moved):
            break
        count += 1
    return count


def reason_of(situation: Situation) -> Reason:
    """Return why turns leave."""
    return "engine_down" if situation.home.threads <= 0 else "queue_full"
