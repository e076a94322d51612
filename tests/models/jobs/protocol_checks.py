"""The invariants of the job protocol's stateful test."""

from typing import Any

from models.jobs.jobs import ENDED
from models.platform.database import Connection
from tests.models.jobs.protocol_model import Model, ModelJob
from tests.pipelines.effect_provider import Provider

# An ended job may still be adopted.
JOBS = """
SELECT id, state, attempt, failures, crashes, parent_id, root_id, depth, join_rule, pending_children, serial_key,
       blocked, cancel_requested_at, finished_at, deadline_at, run_at, published_at, sends, worker, message_id,
       claim_id, wait_until, sequence, clock_timestamp() AS now,
       md5((to_jsonb(jobs) - '{parent_id,root_id,depth}'::text[])::text) AS hash
FROM jobs WHERE account_id <> 'platform'
"""
ENDINGS = "SELECT job_id, count(*) AS n FROM endings GROUP BY job_id"
CHUNKS = "SELECT job_id, first_sequence, last_sequence, tokens, events FROM job_events ORDER BY 1, 2"
BUDGETS = "SELECT root_id, max_tokens, tokens FROM budgets"
#: The result of a call that an operator has decided on.
BY_OPERATOR = {"id": "by an operator"}

EFFECTS = "SELECT job_id, state, result, error ->> 'code' AS code, idempotency_key FROM effects"


def check(connection: Connection, model: Model, ended_rows: dict[str, str], provider: Provider) -> None:
    """Check all invariants, in one round trip."""
    jobs, endings, chunks, budgets, stored = map(connection.execute, (JOBS, ENDINGS, CHUNKS, BUDGETS, EFFECTS))
    rows = {row["id"]: row for row in jobs.fetchall()}
    check_model(rows, model)
    check_ended(rows, ended_rows)
    check_serial_keys(rows, model)
    check_children(rows)
    assert {row["job_id"]: row["n"] for row in endings.fetchall()} == {
        job.id: job.endings for job in [*model.jobs.values(), *model.moved.values()] if job.endings
    }
    check_archive(chunks.fetchall())
    check_budgets(budgets.fetchall(), model)
    check_effects(stored.fetchall(), model, provider)


def check_model(rows: dict[str, dict[str, Any]], model: Model) -> None:
    """Check that Postgres equals the model."""
    assert set(rows) == set(model.jobs)
    for job in model.jobs.values():
        row = rows[job.id]
        assert facts_of(row) == facts_of_model(job), job
    order = sorted(rows.values(), key=lambda row: (row["sequence"] or 0, row["id"]))
    assert [row["id"] for row in order] == [job.id for job in sorted(model.jobs.values(), key=lambda job: job.order)]


def facts_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what the model knows of a row."""
    facts: dict[str, Any] = {
        name: row[name]
        for name in ("state", "attempt", "failures", "crashes", "parent_id", "root_id", "depth", "join_rule")
    }
    facts["pending"] = row["pending_children"]
    facts["cancelled"] = row["cancel_requested_at"] is not None
    facts["finished"] = row["finished_at"] is not None
    facts["deadline"] = time_of(row, "deadline_at")
    if row["state"] in ("scheduled", "queued"):
        facts["later"] = row["run_at"] > row["now"]
    if row["state"] == "queued":
        facts |= {"published": row["published_at"] is not None, "sends": row["sends"]}
    if row["state"] == "running":
        facts |= {name: row[name] for name in ("worker", "message_id", "claim_id", "sends")}
    if row["state"] == "waiting":
        facts["wait"] = time_of(row, "wait_until")
    if row["state"] not in ENDED:
        facts["blocked"] = row["blocked"]
    return facts


def facts_of_model(job: ModelJob) -> dict[str, Any]:
    facts: dict[str, Any] = {
        name: getattr(job, name)
        for name in ("state", "attempt", "failures", "crashes", "parent_id", "root_id", "depth", "join_rule")
    }
    facts["pending"] = job.pending
    facts["cancelled"] = job.cancel_requested
    facts["finished"] = not job.unfinished
    facts["deadline"] = job.deadline
    if job.state in ("scheduled", "queued"):
        facts["later"] = job.later
    if job.state == "queued":
        facts |= {"published": job.published, "sends": job.sends}
    if job.state == "running":
        facts |= {name: getattr(job, name) for name in ("worker", "message_id", "claim_id", "sends")}
    if job.state == "waiting":
        facts["wait"] = job.wait
    if job.unfinished:
        facts["blocked"] = job.blocked
    return facts


def time_of(row: dict[str, Any], column: str) -> str:
    if row[column] is None:
        return "none"
    return "future" if row[column] > row["now"] else "passed"


def check_ended(rows: dict[str, dict[str, Any]], ended_rows: dict[str, str]) -> None:
    """Check that ended jobs do not change."""
    for job_id, row in rows.items():
        if row["state"] in ENDED:
            assert ended_rows.setdefault(job_id, row["hash"]) == row["hash"]


def check_serial_keys(rows: dict[str, dict[str, Any]], model: Model) -> None:
    """Check that at most one job of a key runs or waits, and that all but the first are blocked.

    Coalescing jobs are blocked only after a replay.
    """
    keys: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows.values(), key=lambda row: (row["sequence"] or 0, row["id"])):
        if row["serial_key"] and row["state"] not in ENDED:
            keys.setdefault(row["serial_key"], []).append(row)
    for key, unfinished in keys.items():
        assert sum(row["state"] in ("running", "waiting") for row in unfinished) <= 1
        if key not in model.mixed_keys:
            assert not unfinished[0]["blocked"]
            assert all(row["blocked"] or model.jobs[row["id"]].coalesce for row in unfinished[1:])


def check_children(rows: dict[str, dict[str, Any]]) -> None:
    """Check that a waiting job has an unfinished child, and counts them."""
    unfinished: dict[str, int] = {}
    for row in rows.values():
        if row["parent_id"] and row["state"] not in ENDED:
            unfinished[row["parent_id"]] = unfinished.get(row["parent_id"], 0) + 1
    for job_id, row in rows.items():
        if row["state"] == "waiting":
            assert row["pending_children"] == unfinished.get(job_id, 0) > 0


def check_archive(chunks: list[dict[str, Any]]) -> None:
    """Check that the archive has no gap and no overlap."""
    following: dict[str, int] = {}
    for chunk in chunks:
        assert chunk["first_sequence"] == following.get(chunk["job_id"], 0)
        following[chunk["job_id"]] = chunk["last_sequence"] + 1
        lines = chunk["events"].split("\n")
        assert len(lines) == chunk["last_sequence"] - chunk["first_sequence"] + 1
        assert chunk["tokens"] == sum('"test.event"' in line for line in lines)


def check_budgets(rows: list[dict[str, Any]], model: Model) -> None:
    """Check that no tree has drawn more than its limit, except what jobs used without having drawn it."""
    assert {row["root_id"]: row["tokens"] for row in rows} == {
        root_id: budget.used for root_id, budget in model.budgets.items()
    }
    assert all(row["tokens"] <= row["max_tokens"] + model.budgets[row["root_id"]].overdrawn for row in rows)


def check_effects(rows: list[dict[str, Any]], model: Model, provider: Provider) -> None:
    """Check that the other system was called once for each job, and that a record says what it answered.

    An operator may decide otherwise, on what could not be known.
    """
    assert {row["job_id"]: row["state"] for row in rows} == model.effects
    assert len(provider.calls) == len(set(provider.calls)) == len(provider.outcomes)
    for row in rows:
        if row["state"] == "done":
            assert row["result"] in (provider.outcomes.get(row["idempotency_key"]), BY_OPERATOR)
        if row["state"] == "failed":
            assert row["code"] in ("card_declined", "by_operator")
