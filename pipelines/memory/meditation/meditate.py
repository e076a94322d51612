"""`meditation.run`: a user's memories are thought over.

An attempt looks, and asks the language model where there is something to ask: the questions are child jobs, and while
they run this job holds no thread. When they have ended the next attempt looks again, at what is there by then, and
applies what it finds together with the answers. A worker that dies loses a look; what the outcome says was done once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from models.jobs import jobs
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren, plain_ending
from models.jobs.attempts import Ending
from models.memory import meditations, spaces
from models.memory.meditations import Meditation
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.memory.meditation.analysis import Analysis, analyse
from pipelines.memory.meditation.apply import apply_plan, make_plan
from pipelines.memory.meditation.insights import collect_insights, insight_jobs, model_budget, model_usage
from pipelines.memory.meditation.probes import RecallEvaluator, build_probes
from pipelines.memory.store import Embed

#: Steps that are told as progress: read, asked, found, applied.
STEPS = 4


def run(settings: Settings, embed: Embed, attempt: Attempt) -> Outcome:
    """Think the user's memories over. Raises the reason to stop, PermanentFailure and EngineError."""
    meditation = _load(attempt)
    if meditation.outcome is not None:
        return _ended(attempt, meditation)
    with attempt.database.connection() as connection:
        space = spaces.find(connection, meditation.account_id, meditation.user_id)
        children = jobs.children(connection, attempt.job.id)
    if space is None:
        return _nothing(attempt, meditation)
    thoughts = analyse(attempt, space.id)
    if not children and (questions := _questions(settings, attempt, meditation, thoughts)):
        attempt.report_progress(2, STEPS, note=f"{len(questions)} groups are asked about")
        return WaitForChildren(questions)
    _apply(embed, attempt, meditation, space.id, thoughts, children)
    return _ended(attempt, _load(attempt))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """The end of a meditation that `run` does not tell. What was applied stays so."""
    ending = plain_ending(attempt, state, error)
    outcome: Literal["cancelled", "failed"] = "cancelled" if state == "cancelled" else "failed"

    def record(connection: Connection) -> None:
        arguments = attempt.job.arguments
        meditations.set_outcome(connection, arguments["meditation_id"], attempt.job.account_id, outcome, {})
        meditations.clear_answers(connection, attempt.job.id)

    return Ending(ending.state, ending.events, error=error, record=record)


def _load(attempt: Attempt) -> Meditation:
    """The meditation that the job is about, put back to work where it had failed. Raises PermanentFailure."""
    arguments, account_id = attempt.job.arguments, attempt.job.account_id
    with attempt.database.transaction() as connection:
        meditations.resume(connection, arguments["meditation_id"], account_id)
        found = meditations.read(connection, arguments["meditation_id"], account_id, arguments["user_id"])
    if found is None:
        raise PermanentFailure("The meditation is gone.", code="deleted")
    return found


def _questions(settings: Settings, attempt: Attempt, meditation: Meditation, thoughts: Analysis) -> list[jobs.NewJob]:
    with attempt.database.connection() as connection:
        allowed = model_budget(connection, meditation.account_id, settings)
    return insight_jobs(thoughts, meditation, allowed)


def _apply(
    embed: Embed,
    attempt: Attempt,
    meditation: Meditation,
    space_id: int,
    thoughts: Analysis,
    children: list[jobs.Job],
) -> None:
    now, survey = datetime.now(UTC), thoughts.snapshot
    insights = collect_insights(children, survey, meditation)
    vectors = embed([insight.memory.text for insight in insights])
    planned = make_plan(thoughts, now, list(zip(insights, vectors, strict=True)))
    asked = build_probes(survey, thoughts.contradictions | thoughts.duplicates)
    measure = RecallEvaluator(embed, asked, meditation.account_id, meditation.user_id, now)
    with attempt.database.connection() as connection:
        speakers = spaces.speakers(connection, space_id)
    measure.embed_queries(speakers)
    report = {"memories": len(survey.memories), "groups": len(thoughts.groups), "model": model_usage(children)}
    attempt.report_progress(3, STEPS, note="changes planned")
    apply_plan(attempt.database, meditation, space_id, planned, measure, report)


def _nothing(attempt: Attempt, meditation: Meditation) -> Ending:
    with attempt.database.transaction() as connection:
        meditations.set_outcome(connection, meditation.id, meditation.account_id, "nothing_to_do", {"memories": 0})
    return _ended(attempt, _load(attempt))


def _ended(attempt: Attempt, meditation: Meditation) -> Ending:
    result = {"meditation_id": meditation.id, "outcome": meditation.outcome, "report": meditation.report}
    ending = plain_ending(attempt, "completed", result=result)
    job_id = attempt.job.id
    return Ending(
        ending.state, ending.events, result, record=lambda connection: meditations.clear_answers(connection, job_id)
    )
