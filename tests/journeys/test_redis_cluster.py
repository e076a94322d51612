"""Turns run, are followed, limited and cancelled on Redis Cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.harness.stack import Servers
from ops.doctor.finding import run_check
from ops.doctor.redis_durability import redis_durability
from ops.doctor.servers import redis_server
from tests.journeys.stack import AccountOwner, Installation, installation_with
from tests.redis_servers import running_cluster


@pytest.fixture(scope="module")
def installation(servers: Servers) -> Iterator[Installation]:
    """An installation whose processes use Redis Cluster, and one server as broker."""
    with installation_with(servers, "clustered", on_cluster) as installation:
        yield installation


@contextmanager
def on_cluster(installation: Installation) -> Iterator[dict[str, str]]:
    """Run a cluster, and yield the settings that name it."""
    with running_cluster(installation.folder / "cluster") as url:
        yield {"redis_url": url, "broker_url": installation.settings.broker_address}


def test_streamed_turns_are_answered_and_resumed(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=20,rate=200", slots=4)

    followers = [user.stream(f"number {number}") for number in range(6)]

    for follower in followers:
        assert follower.end().types[-1] == "response.completed"
        again = user.follow(follower.response_id, 3)
        assert again.end().types == follower.types[4:]


def test_a_running_turn_is_cancelled(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=400,rate=100", slots=1)
    follower = user.stream()
    follower.wait_for_events(deltas=2)

    user.post(f"/v1/responses/{follower.response_id}/cancel")

    assert follower.end().types[-1] == "sangha:job.cancelled"


def test_requests_are_limited_by_account_and_key(stack: Installation, user: AccountOwner):
    response = user.request("GET", "/v1/me")

    assert response.status_code == 200
    assert "x-ratelimit-remaining-requests" in response.headers


def test_doctor_and_readiness_accept_the_cluster(stack: Installation, user: AccountOwner):
    findings = [run_check(check, stack.settings) for check in (redis_server, redis_durability)]

    assert [finding.verdict for finding in findings] == ["ok", "warn"], findings  # the nodes keep nothing on disk
    ready = user.request("GET", "/readyz")
    assert ready.json()["checks"]["redis"] == "ok"
    assert ["append-only" in warning for warning in ready.json()["warnings"]] == [True]
