"""How jobs of memories end: nobody's words stay in their rows, and none holds its thread for ever."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import clear_arguments
from models.platform.errors import Released

#: Seconds of a shift.
SHIFT = 600.0


class TimeSlice:
    """The time that an attempt works at most before it gives its job back: the next one goes on where it was, and the
    broker never takes a long job for a lost one."""

    def __init__(self, attempt: Attempt, seconds: float = SHIFT) -> None:
        self._attempt = attempt
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise the reason to stop, or Released."""
        self._attempt.check()
        if time.monotonic() > self._end:
            raise Released("a long job goes on in another attempt")


def complete_without_arguments(attempt: Attempt, result: Mapping[str, Any]) -> Ending:
    """The end of a job that has done its work: what was said stands among the memories only."""
    return _without_words(attempt, plain_ending(attempt, "completed", result=result))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """The end of a job that has not. The dead keep what they need for another life, which an operator may give them."""
    ending = plain_ending(attempt, state, error)
    return ending if state == "dead" else _without_words(attempt, ending)


def _without_words(attempt: Attempt, ending: Ending) -> Ending:
    return replace(ending, record=lambda connection: clear_arguments(connection, attempt.job.id))
