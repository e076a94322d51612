"""Turns, memories and schedules work through PgBouncer in transaction mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from bench.harness.stack import Servers
from bench.harness.waiting import wait_until
from models.platform import pooler
from ops.embedded_servers import running_server
from tests.journeys.stack import AccountOwner, Installation, installation_with
from tests.pgbouncer import PgBouncer


@pytest.fixture(scope="module")
def installation(servers: Servers) -> Iterator[Installation]:
    """An installation whose processes connect to Postgres through PgBouncer."""
    with installation_with(servers, "pooled", behind_pgbouncer) as installation:
        pooler.store_limits(installation.settings)
        yield installation


@contextmanager
def behind_pgbouncer(installation: Installation) -> Iterator[dict[str, str]]:
    """Run PgBouncer, and yield the setting that names it."""
    home = installation.folder
    pgbouncer = PgBouncer(home / "pgbouncer", installation.servers.postgres, size=4)
    with running_server(pgbouncer, home / "run", home / "logs"):
        database = urlsplit(installation.settings.postgres_dsn).path.strip("/")
        yield {"database_pooler_url": pgbouncer.url(database)}


def test_streamed_turns_are_answered_and_billed(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=20,rate=200", slots=4)

    followers = [user.stream(f"number {number}") for number in range(12)]

    for follower in followers:
        assert follower.end().types[-1] == "response.completed"
    job_ids = [follower.job_id for follower in followers]
    rows = stack.rows("SELECT job_id, output_tokens FROM usage_records WHERE job_id = ANY(%s)", job_ids)
    assert sorted(row["job_id"] for row in rows) == sorted(job_ids)
    assert {row["output_tokens"] for row in rows} == {20}


def test_turn_is_cancelled_and_the_next_one_of_its_conversation_runs(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=400,rate=100", slots=1)
    conversation = user.post("/v1/conversations", {})["id"]
    first = user.stream("one", conversation=conversation)
    first.wait_for_events(deltas=2)
    second = user.stream("two", conversation=conversation)

    user.post(f"/v1/responses/{first.response_id}/cancel")
    second.wait_for_events(deltas=1)
    user.post(f"/v1/responses/{second.response_id}/cancel")

    assert first.end().types[-1] == second.end().types[-1] == "sangha:job.cancelled"


def test_remembered_text_is_found_by_a_search(stack: Installation, user: AccountOwner):
    stack.start_worker("", "memory", "recall")
    created = user.request("POST", "/v1/memories", json={"text": "The ferry to Marstrand leaves at noon."})
    assert created.status_code == 201

    found = wait_until(lambda: user.post("/v1/memories/search", {"query": "When does the ferry leave?"})["data"])

    assert "Marstrand" in found[0]["text"]


def test_killed_worker_is_continued_by_another(stack: Installation, user: AccountOwner):
    first = stack.start_worker("tokens=60,rate=40", slots=1)
    follower = user.stream()
    follower.wait_for_events(deltas=5)
    stack.start_worker("tokens=60,rate=40", slots=1)

    stack.remove(first)
    stack.release_jobs(first)

    assert follower.end().types[-1] == "response.completed"
    assert len(follower.text.split()) == 60


def test_only_pooled_connections_are_open(stack: Installation, user: AccountOwner):
    """The settings reach every process."""
    sessions = "SELECT count(*) AS count FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL(%s)"
    own = [row["pid"] for row in stack.rows("SELECT pid FROM pg_stat_activity WHERE application_name = 'sangha'")]

    assert stack.rows(sessions, own)[0]["count"] <= 4
