"""How jobs of memories end: nobody's words stay in their rows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from models.attempts import Ending
from models.jobs import forget_arguments
from models.running import Attempt, plain_ending


def wordless(attempt: Attempt, result: Mapping[str, Any]) -> Ending:
    """The end of a job that has done its work: what was said stands among the memories only."""
    return _without_words(attempt, plain_ending(attempt, "completed", result=result))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """The end of a job that has not. The dead keep what they need for another life, which an operator may give them."""
    ending = plain_ending(attempt, state, error)
    return ending if state == "dead" else _without_words(attempt, ending)


def _without_words(attempt: Attempt, ending: Ending) -> Ending:
    return replace(ending, record=lambda connection: forget_arguments(connection, attempt.job.id))
