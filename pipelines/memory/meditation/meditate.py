"""`meditation.run`: consolidate the memories of a space.

An attempt analyses the space and, if there is something to ask the language model, waits for child jobs that ask. The
next attempt analyses the space again, as it is by then, and applies its findings together with the answers. A worker
that dies costs one analysis; the recorded outcome guarantees that changes are applied once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from models.jobs import jobs
from models.jobs.attempt_context import Attempt, Outcome, WaitForChildren, plain_ending
from models.jobs.attempts import Ending
from models.memory import meditations, spaces
from models.memory.meditations import Meditation
from models.memory.spaces import SpaceKey
from models.platform.database import Connection
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.memory.meditation.analysis import Analysis, analyse
from pipelines.memory.meditation.apply import apply_plan, make_plan
from pipelines.memory.meditation.insights import collect_insights, insight_jobs, model_budget, model_usage
from pipelines.memory.meditation.probes import RecallEvaluator, build_probes
from pipelines.memory.model_tokens import reserve_money
from pipelines.memory.store import Embed

#: The steps that are reported as progress: read, asked, planned, applied.
STEPS = 4


def run(settings: Settings, embed: Embed, attempt: Attempt) -> Outcome:
    """Consolidate a space. Raises the reason to stop, PermanentFailure and EngineError."""
    meditation = _load(attempt)
    if meditation.outcome is not None:
        return _complete(attempt, meditation)
    with attempt.database.connection() as connection:
        space = spaces.find(connection, meditation.key)
        children = jobs.children(connection, attempt.job.id)
    if space is None:
        return _complete_without_memories(attempt, meditation)
    analysis = analyse(attempt, space.id)
    if not children and (new_children := _insight_jobs(settings, attempt, meditation, analysis)):
        attempt.report_progress(2, STEPS, note=f"{len(new_children)} groups are asked about")
        reserve = partial(reserve_money, jobs=new_children, settings=settings)
        return WaitForChildren(new_children, within_month=True, reserve=reserve)
    _apply(embed, attempt, meditation, space.id, analysis, children)
    return _complete(attempt, _load(attempt))


def end(attempt: Attempt, state: Literal["cancelled", "failed", "dead"], error: Mapping[str, Any] | None) -> Ending:
    """End a meditation that did not complete. Changes that were applied remain."""
    ending = plain_ending(attempt, state, error)
    outcome: Literal["cancelled", "failed"] = "cancelled" if state == "cancelled" else "failed"

    def record(connection: Connection) -> None:
        arguments = attempt.job.arguments
        meditations.set_outcome(connection, arguments["meditation_id"], attempt.job.account_id, outcome, {})
        meditations.clear_answers(connection, attempt.job.id)

    return Ending(ending.state, ending.events, error=error, record=record)


def _load(attempt: Attempt) -> Meditation:
    """Read the job's meditation, and resume it if it had failed. Raises PermanentFailure if it was deleted."""
    meditation_id, key = attempt.job.arguments["meditation_id"], SpaceKey.of_job(attempt.job)
    with attempt.database.transaction() as connection:
        meditations.resume(connection, meditation_id, key.account_id)
        meditation = meditations.read(connection, meditation_id, key)
    if meditation is None:
        raise PermanentFailure("This meditation was deleted.", code="deleted")
    return meditation


def _insight_jobs(
    settings: Settings, attempt: Attempt, meditation: Meditation, analysis: Analysis
) -> list[jobs.NewJob]:
    with attempt.database.connection() as connection:
        budget = model_budget(connection, meditation.account_id, settings)
    return insight_jobs(analysis, meditation, budget)


def _apply(
    embed: Embed,
    attempt: Attempt,
    meditation: Meditation,
    space_id: int,
    analysis: Analysis,
    children: list[jobs.Job],
) -> None:
    now, snapshot = datetime.now(UTC), analysis.snapshot
    insights = collect_insights(children, snapshot, meditation)
    vectors = embed([insight.memory.text for insight in insights])
    plan = make_plan(analysis, now, list(zip(insights, vectors, strict=True)))
    probes = build_probes(snapshot, analysis.contradictions | analysis.duplicates)
    evaluator = RecallEvaluator(embed, probes, meditation.key, now)
    with attempt.database.connection() as connection:
        speakers = spaces.speakers(connection, space_id)
    evaluator.embed_queries(speakers)
    report = {"memories": len(snapshot.memories), "groups": len(analysis.groups), "model": model_usage(children)}
    attempt.report_progress(3, STEPS, note="changes planned")
    apply_plan(attempt.database, meditation, space_id, plan, evaluator, report)


def _complete_without_memories(attempt: Attempt, meditation: Meditation) -> Ending:
    with attempt.database.transaction() as connection:
        meditations.set_outcome(connection, meditation.id, meditation.account_id, "nothing_to_do", {"memories": 0})
    return _complete(attempt, _load(attempt))


def _complete(attempt: Attempt, meditation: Meditation) -> Ending:
    """Complete the job with the meditation's outcome and report, and clear the children's answers."""
    result = {"meditation_id": meditation.id, "outcome": meditation.outcome, "report": meditation.report}
    ending = plain_ending(attempt, "completed", result=result)
    job_id = attempt.job.id
    return Ending(
        ending.state, ending.events, result, record=lambda connection: meditations.clear_answers(connection, job_id)
    )
