"""End jobs whose arguments contain memory texts: the arguments are deleted when the job ends."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from models.jobs.attempt_context import Attempt, plain_ending
from models.jobs.attempts import Ending
from models.jobs.jobs import clear_arguments


def complete_without_arguments(attempt: Attempt, result: Mapping[str, Any]) -> Ending:
    """Complete a job and delete its arguments: the texts remain among the memories only."""
    return _without_arguments(attempt, plain_ending(attempt, "completed", result=result))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """End a job that did not complete. A dead job keeps its arguments, because an operator may retry it."""
    ending = plain_ending(attempt, state, error)
    return ending if state == "dead" else _without_arguments(attempt, ending)


def _without_arguments(attempt: Attempt, ending: Ending) -> Ending:
    return replace(ending, record=lambda connection: clear_arguments(connection, attempt.job.id))
