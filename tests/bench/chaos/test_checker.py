"""Given a run without violations, when its tables are corrupted, then the violated rule is reported."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from bench.chaos import file_rules, memory_rules, table_rules
from bench.chaos.checker import check, journal_lost
from bench.chaos.crash_rules import CrashRules, forgotten_stops, silent_periods
from bench.chaos.fault import InjectedFault
from bench.chaos.faults import DEPLOY_WORKERS, POSTGRES_AWAY, POSTGRES_LINKS
from bench.chaos.file_clients import GONE
from bench.chaos.quiescence import wait_for_quiescence
from bench.chaos.supervised_processes import WorkerDeath
from bench.chaos.transcripts import Period
from models.jobs import ended_partitions
from models.jobs.ended_jobs import move_batch
from models.platform.database import Connection
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from models.platform.redis_client import connect
from tests.bench.chaos.conftest import FinishedFleet

COMPLETED = "(SELECT id FROM jobs WHERE kind = 'turn.run' AND state = 'completed' ORDER BY id LIMIT 1)"
IMPORTED = "(SELECT id FROM memories WHERE metadata ? 'chaos' AND closed_at IS NULL ORDER BY id LIMIT 1)"


def test_a_run_without_faults_has_no_violation(finished: FinishedFleet):
    kinds = {transcript.kind for transcript in finished.transcripts}

    assert kinds == {"turn", "memories", "meditation", "embeddings", "file", "listing", "report"}
    assert any(transcript.cancels for transcript in finished.transcripts)
    assert any(not transcript.exact for transcript in finished.transcripts)
    assert [str(violation) for violation in check(finished.transcripts, finished.settings, 20)] == []
    with finished.database.connection() as connection:
        assert connection.execute("SELECT FROM jobs WHERE state = 'dead'").fetchall() == []


@pytest.mark.parametrize(
    ("faults", "killed", "lost"),
    [
        ([], True, False),
        (["wipe-valkey"], False, True),
        (["evict-streams"], False, False),
        (["evict-streams"], True, True),
    ],
)
def test_events_may_be_lost_with_valkey_or_with_a_worker_and_its_evicted_journal(
    faults: list[str], killed: bool, lost: bool
):
    injected = [InjectedFault(name, "valkey", 0.0, 1.0) for name in faults]

    assert journal_lost(injected, [WorkerDeath("light", 0.0)] * killed) is lost


@contextmanager
def corrupted(finished: FinishedFleet, statement: str) -> Iterator[Connection]:
    """Change the tables with a statement, which is rolled back at the end of the block."""
    with finished.database.connection() as connection, connection.transaction(force_rollback=True):
        assert connection.execute(statement).rowcount > 0, "the statement changed nothing"
        yield connection


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (f"UPDATE jobs SET state = 'failed' WHERE id = {COMPLETED}", "ends"),
        (f"UPDATE jobs SET state = 'cancelled' WHERE id = {COMPLETED}", "ends"),
        (f"DELETE FROM jobs WHERE id = {COMPLETED}", "durable"),
        (f"UPDATE usage_records SET output_tokens = output_tokens + 1 WHERE job_id = {COMPLETED}", "billed"),
        (f"DELETE FROM usage_records WHERE job_id = {COMPLETED}", "billed"),
        ("UPDATE quota_usage SET tokens = tokens + 1", "billed"),
        (
            "INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens)"
            " SELECT 'job_unknown', account_id, model, 0, 0, 0 FROM usage_records LIMIT 1",
            "billed",
        ),
        (f"UPDATE job_events SET tokens = tokens + 1 WHERE job_id = {COMPLETED} AND tokens > 0", "billed"),
        (f"DELETE FROM job_events WHERE job_id = {COMPLETED} AND first_sequence = 0", "archive"),
        (f"UPDATE job_events SET events = replace(events, 'w0', 'w9') WHERE job_id = {COMPLETED}", "archive"),
        (f"UPDATE job_events SET last_sequence = last_sequence + 1 WHERE job_id = {COMPLETED}", "archive"),
        ("DELETE FROM conversation_items WHERE position % 2 = 0", "conversation"),
        (
            "UPDATE jobs SET started_at = created_at - interval '1 minute'"
            " WHERE kind = 'turn.run' AND state = 'completed' AND serial_key LIKE 'conv%'",
            "one at a time",
        ),
        (
            "UPDATE jobs SET started_at = '2100-01-01'::timestamptz - (started_at - '2000-01-01'::timestamptz),"
            " finished_at = '2100-01-01' WHERE kind = 'turn.run' AND serial_key LIKE 'conv%'",
            "order",
        ),
        (
            "UPDATE responses SET request = jsonb_set(request::jsonb, '{metadata,chaos}', '\"unasked\"')"
            f" WHERE job_id = {COMPLETED}",
            "once a key",
        ),
    ],
)  # fmt: skip
def test_a_corrupted_turn_is_reported(finished: FinishedFleet, statement: str, rule: str):
    with corrupted(finished, statement) as connection:
        violations = list(table_rules.check(connection, finished.transcripts, finished.accounts))

    assert rule in {violation.rule for violation in violations}


@pytest.fixture
def moved(finished: FinishedFleet) -> Iterator[Connection]:
    """A transaction in which all ended jobs are moved."""
    ended_partitions.create_missing(finished.database)
    with finished.database.connection() as connection, connection.transaction(force_rollback=True):
        assert move_batch(connection, 10_000, age=0).moved >= len(finished.transcripts)
        yield connection


def test_moved_turns_have_no_violation(finished: FinishedFleet, moved: Connection):
    assert [str(each) for each in table_rules.check(moved, finished.transcripts, finished.accounts)] == []
    assert list(CrashRules([]).check(moved)) == []


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("tokens = tokens + 1", "billed"),
        ("last_sequence = last_sequence + 1", "archive"),
        ("events = NULL", "archive"),
        ("state = 'failed'", "ends"),
        ("started_at = created_at - interval '1 minute'", "one at a time"),
    ],
)
def test_a_corrupted_moved_turn_is_reported(finished: FinishedFleet, moved: Connection, assignment: str, rule: str):
    moved.execute(f"UPDATE ended_jobs SET {assignment} WHERE kind = 'turn.run' AND state = 'completed'".encode())

    violations = list(table_rules.check(moved, finished.transcripts, finished.accounts))

    assert rule in {violation.rule for violation in violations}


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (f"DELETE FROM memories WHERE id = {IMPORTED}", "memories"),
        (f"UPDATE memories SET text = text || '!' WHERE id = {IMPORTED}", "memories"),
        ("UPDATE memory_vectors SET live = NOT live", "memories"),
        ("DELETE FROM memory_vectors", "memories"),
        ("UPDATE memory_spaces SET live = live + 1", "memories"),
        ("UPDATE memory_spaces SET next_ordinal = 0 WHERE live > 0", "memories"),
        ("DELETE FROM memory_postings WHERE block = 0", "memories"),
        (f"UPDATE responses SET unremembered = true WHERE job_id = {COMPLETED}", "remembered"),
        ("DELETE FROM memories WHERE response_id IS NOT NULL", "remembered"),
        ("UPDATE meditations SET outcome = 'would_harm' WHERE outcome <> 'would_harm'", "meditation"),
        ("DELETE FROM meditations", "meditation"),
        (
            "INSERT INTO meditation_changes (meditation_id, position, memory_id, action)"
            " SELECT id, 10000, 'mem_none', 'weighed' FROM meditations LIMIT 1",
            "meditation",
        ),
    ],
)
def test_a_corrupted_memory_is_reported(finished: FinishedFleet, statement: str, rule: str):
    with corrupted(finished, statement) as connection:
        violations = list(memory_rules.check(connection, finished.transcripts, finished.accounts))

    assert rule in {violation.rule for violation in violations}


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("DELETE FROM files", "durable"),
        ("UPDATE file_objects SET bytes = bytes - 1 WHERE bytes > 1", "files"),
        ("UPDATE file_objects SET object_key = object_key || 'x'", "files"),
        ("UPDATE files SET filename = 'unknown'", "files"),
        ("UPDATE file_objects SET file_id = NULL, upload_id = NULL", "files"),
        (
            "INSERT INTO files (id, account_id, filename, purpose, content_type, bytes, object_key)"
            " SELECT id || 'x', account_id, filename, purpose, content_type, bytes, object_key FROM files LIMIT 1",
            "files",
        ),
    ],
)
def test_a_corrupted_file_is_reported(finished: FinishedFleet, statement: str, rule: str):
    objects = ObjectStore.open(finished.settings)
    with corrupted(finished, statement) as connection:
        violations = list(file_rules.check(connection, objects, finished.transcripts, finished.accounts))

    assert rule in {violation.rule for violation in violations}


@pytest.mark.parametrize("deleted", [False, True])
def test_content_may_be_missing_after_a_deletion_that_postgres_has_lost(finished: FinishedFleet, deleted: bool):
    objects = ObjectStore.open(finished.settings)
    with corrupted(finished, "UPDATE file_objects SET object_key = object_key || 'x'") as connection:
        rows = connection.execute("SELECT filename FROM files WHERE purpose = 'user_data'").fetchall()
        kept = {row["filename"] for row in rows}
        transcripts = [each for each in finished.transcripts if each.key in kept]
        for transcript in transcripts:
            transcript.statuses.extend([GONE] * deleted)
        violations = list(file_rules.check(connection, objects, transcripts, finished.accounts, kept))
        for transcript in transcripts:
            del transcript.statuses[len(transcript.statuses) - deleted :]

    assert {violation.rule for violation in violations} == (set() if deleted else {"files"})


def test_a_search_that_finds_nothing_is_reported(finished: FinishedFleet):
    (imported, *_) = [each for each in finished.transcripts if each.kind == "memories"]
    text = imported.request["memories"][0]["text"]
    imported.statuses.append(f"missing {text}")

    with finished.database.connection() as connection:
        rows = [{"text": memory["text"], "closed": False} for memory in imported.request["memories"]]
        violations = list(memory_rules.check_import(imported, rows))
        connection.execute("SELECT 1")
    imported.statuses.pop()

    assert [violation.rule for violation in violations] == ["search"]


def crash(failures: int, crashes: int, state: str = "completed") -> str:
    return (
        f"UPDATE jobs SET state = '{state}', failures = {failures}, crashes = {crashes},"
        f" created_at = now() - interval '1 minute', finished_at = now() WHERE id = {COMPLETED}"
    )


@pytest.mark.parametrize(
    ("change", "seconds_ago", "rules"),
    [
        (crash(0, 0), [], []),
        (crash(1, 1), [30], []),
        (crash(1, 1), [], ["crashes"]),
        (crash(2, 2), [30, 90], ["crashes"]),
        (crash(5, 2, "dead"), [30, 20], ["dead"]),
        (crash(5, 5, "dead"), [50, 40, 30, 20, 10], []),
        (crash(5, 5, "dead"), [50, 40], ["crashes", "dead"]),
    ],
    ids=[
        "no crash", "a crash", "without a death", "a death before the job", "dead by failures",
        "dead by crashes", "dead by crashes without deaths",
    ],
)  # fmt: skip
def test_crashes_without_deaths_of_workers_are_reported(
    finished: FinishedFleet, change: str, seconds_ago: list[float], rules: list[str]
):
    crash_rules = CrashRules([WorkerDeath("light", time.time() - seconds) for seconds in seconds_ago])

    with corrupted(finished, change) as connection:
        assert [violation.rule for violation in crash_rules.check(connection)] == rules


def test_a_crash_in_a_long_silence_is_no_violation():
    silence = CrashRules([], [(1000.0, 1030.0)])

    assert (silence.possible_crashes(900.0, 1005.0), silence.possible_crashes(1040.0, 1050.0)) == (1, 0)


def test_only_consecutive_faults_keep_workers_silent_for_longer_than_a_lease():
    # Given faults of 9 seconds on the way to Postgres, of which the first two follow each other at once
    faults = [InjectedFault("stall-link", "worker-postgres", begin, begin + 9.0) for begin in (0.0, 10.0, 60.0)]
    others = [InjectedFault("stall-link", "web-postgres", 69.0, 79.0)]
    outage = [InjectedFault(POSTGRES_AWAY, POSTGRES_LINKS, 200.0, 260.0)]

    assert list(silent_periods([*faults, *others, *outage], 1000.0)) == [(1000.0, 1019.0)]


def test_a_worker_whose_stop_a_failover_has_lost_counts_as_silent():
    # Given two replacements of workers, and commits that were lost during the second one
    replaced = [InjectedFault(DEPLOY_WORKERS, "light", begin, begin + 5.0) for begin in (0.0, 30.0)]
    killed = InjectedFault("kill-web", "web-a", 33.0, 34.0)

    assert list(forgotten_stops([*replaced, killed], [Period(28.0, 32.0)], 1000.0)) == [(1030.0, 1035.0)]


@pytest.mark.parametrize(
    ("state", "rule"),
    [
        ("'queued', now() - interval '1 minute', NULL, NULL", "stuck"),
        ("'queued', now() - interval '1 minute', now(), NULL", "stuck"),
        ("'running', now(), now(), now() - interval '1 minute'", "stuck"),
        ("'waiting', now(), NULL, NULL", "stuck"),
    ],
    ids=["unpublished", "published and lost", "without a lease", "without children"],
)
def test_a_stuck_job_is_reported(finished: FinishedFleet, state: str, rule: str):
    job_id = new_id("job")
    statement = f"""
    INSERT INTO jobs (id, account_id, kind, queue, state, run_at, published_at, lease_until)
    VALUES ('{job_id}', 'platform', 'maintenance.prune', 'maintenance', {state})
    """
    with finished.database.connection() as connection:
        connection.execute(statement)
        try:
            violations = list(wait_for_quiescence(finished.database, finished.settings, 0.01, None))
        finally:
            connection.execute("DELETE FROM jobs WHERE id = %s", (job_id,))

    assert [(violation.rule, violation.subject) for violation in violations] == [(rule, job_id)]


def test_a_message_without_a_consumer_is_reported(finished: FinishedFleet):
    client: redis.Redis = connect(finished.settings.broker_address)
    client.rpush("sangha:queue:inference", "message")
    try:
        violations = list(wait_for_quiescence(finished.database, finished.settings, 0.01, None))
    finally:
        client.delete("sangha:queue:inference")
        client.close()

    assert [(violation.rule, violation.subject) for violation in violations] == [("queues", "inference")]


def test_a_locked_idempotency_key_is_reported(finished: FinishedFleet):
    with finished.database.connection() as connection:
        connection.execute(
            "INSERT INTO idempotency_keys (account_id, key, fingerprint, seed, locked_until)"
            " VALUES ('platform', 'held', '', 'seed', now() + interval '1 hour')"
        )
        try:
            violations = list(wait_for_quiescence(finished.database, finished.settings, 0.01, None))
        finally:
            connection.execute("DELETE FROM idempotency_keys WHERE key = 'held'")

    assert [(violation.rule, violation.subject) for violation in violations] == [("idempotency", "held")]
