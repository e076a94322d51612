"""Given a platform that broke no promise, when anything in its tables is changed, then the broken one is named."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from bench.chaos import remembered, tables
from bench.chaos.calm import calmed
from bench.chaos.checker import casualties, check, given_up
from models.platform.database import Connection
from models.platform.ids import new_id
from models.platform.redis_client import connect
from tests.bench.chaos.conftest import Finished

COMPLETED = "(SELECT id FROM jobs WHERE kind = 'turn.run' AND state = 'completed' ORDER BY id LIMIT 1)"
BROUGHT = "(SELECT id FROM memories WHERE metadata ? 'chaos' AND closed_at IS NULL ORDER BY id LIMIT 1)"


def test_a_fleet_in_peace_finds_no_broken_promise(finished: Finished):
    kinds = {transcript.kind for transcript in finished.transcripts}

    assert kinds == {"turn", "memories", "meditation", "embeddings", "listing"}
    assert any(transcript.cancels for transcript in finished.transcripts)
    assert any(not transcript.exact for transcript in finished.transcripts)
    assert [str(found) for found in check(finished.transcripts, finished.settings, 20)] == []
    assert casualties(finished.settings) == {}


@contextmanager
def corrupted(finished: Finished, statement: str) -> Iterator[Connection]:
    """The tables after a statement that changes something, which is taken back."""
    with finished.database.connection() as connection, connection.transaction(force_rollback=True):
        assert connection.execute(statement).rowcount > 0, "nothing was corrupted"
        yield connection


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (f"UPDATE jobs SET state = 'failed' WHERE id = {COMPLETED}", "ends"),
        (f"UPDATE jobs SET state = 'cancelled' WHERE id = {COMPLETED}", "ends"),
        (f"DELETE FROM jobs WHERE id = {COMPLETED}", "kept"),
        (f"UPDATE usage_records SET output_tokens = output_tokens + 1 WHERE job_id = {COMPLETED}", "billed"),
        (f"DELETE FROM usage_records WHERE job_id = {COMPLETED}", "billed"),
        ("UPDATE quota_usage SET tokens = tokens + 1", "billed"),
        (
            "INSERT INTO usage_records (job_id, account_id, model, input_tokens, cached_tokens, output_tokens)"
            " SELECT 'job_unheard', account_id, model, 0, 0, 0 FROM usage_records LIMIT 1",
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
            "UPDATE responses SET request = jsonb_set(request::jsonb, '{metadata,chaos}', '\"unasked\"')"
            f" WHERE job_id = {COMPLETED}",
            "once a key",
        ),
    ],
)  # fmt: skip
def test_a_corrupt_turn_is_named(finished: Finished, statement: str, rule: str):
    with corrupted(finished, statement) as connection:
        found = list(tables.judged(connection, finished.transcripts, finished.accounts))

    assert rule in {violation.rule for violation in found}


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (f"DELETE FROM memories WHERE id = {BROUGHT}", "memories"),
        (f"UPDATE memories SET text = text || '!' WHERE id = {BROUGHT}", "memories"),
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
def test_a_corrupt_memory_is_named(finished: Finished, statement: str, rule: str):
    with corrupted(finished, statement) as connection:
        found = list(remembered.judged(connection, finished.transcripts, finished.accounts))

    assert rule in {violation.rule for violation in found}


def test_a_search_that_finds_nothing_is_named(finished: Finished):
    (brought, *_) = [each for each in finished.transcripts if each.kind == "memories"]
    text = brought.asked["memories"][0]["text"]
    brought.statuses.append(f"missing {text}")

    with finished.database.connection() as connection:
        rows = [{"text": memory["text"], "closed": False} for memory in brought.asked["memories"]]
        found = list(remembered.brought(brought, rows))
        connection.execute("SELECT 1")
    brought.statuses.pop()

    assert [violation.rule for violation in found] == ["found"]


def test_a_death_that_no_crash_explains_is_named(finished: Finished):
    dead = f"UPDATE jobs SET state = 'dead', failures = 5, crashes = 2 WHERE id = {COMPLETED}"

    with corrupted(finished, dead) as connection:
        found = list(given_up(connection))

    assert [violation.rule for violation in found] == ["dead"]


def test_a_death_by_crashes_is_what_was_promised(finished: Finished):
    dead = f"UPDATE jobs SET state = 'dead', failures = 5, crashes = 5 WHERE id = {COMPLETED}"

    with corrupted(finished, dead) as connection:
        assert list(given_up(connection)) == []


@pytest.mark.parametrize(
    ("state", "rule"),
    [
        ("'queued', now() - interval '1 minute', NULL, NULL", "moves"),
        ("'queued', now() - interval '1 minute', now(), NULL", "moves"),
        ("'running', now(), now(), now() - interval '1 minute'", "moves"),
        ("'waiting', now(), NULL, NULL", "moves"),
    ],
    ids=["unpublished", "published in vain", "without a lease", "without children"],
)
def test_a_job_that_nobody_will_end_is_named(finished: Finished, state: str, rule: str):
    job_id = new_id("job")
    statement = f"""
    INSERT INTO jobs (id, account_id, kind, queue, state, run_at, published_at, lease_until)
    VALUES ('{job_id}', 'platform', 'maintenance.prune', 'maintenance', {state})
    """
    with finished.database.connection() as connection:
        connection.execute(statement)
        try:
            found = list(calmed(finished.database, finished.settings, 0.01, None))
        finally:
            connection.execute("DELETE FROM jobs WHERE id = %s", (job_id,))

    assert [(violation.rule, violation.subject) for violation in found] == [(rule, job_id)]


def test_a_message_that_nobody_takes_is_named(finished: Finished):
    client: redis.Redis = connect(finished.settings.broker_address)
    client.rpush("sangha:queue:inference", "message")
    try:
        found = list(calmed(finished.database, finished.settings, 0.01, None))
    finally:
        client.delete("sangha:queue:inference")
        client.close()

    assert [(violation.rule, violation.subject) for violation in found] == [("queues", "inference")]


def test_a_request_that_nobody_ends_is_named(finished: Finished):
    with finished.database.connection() as connection:
        connection.execute(
            "INSERT INTO idempotency_keys (account_id, key, fingerprint, seed, locked_until)"
            " VALUES ('platform', 'held', '', 'seed', now() + interval '1 hour')"
        )
        try:
            found = list(calmed(finished.database, finished.settings, 0.01, None))
        finally:
            connection.execute("DELETE FROM idempotency_keys WHERE key = 'held'")

    assert [(violation.rule, violation.subject) for violation in found] == [("idempotency", "held")]
