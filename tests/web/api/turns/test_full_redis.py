"""Requests while Redis refuses writes for lack of memory."""

import contextlib

import pytest

from tests.web.api_client import assert_error


@pytest.fixture
def full_redis(redis_client):
    """`full_redis()`: a context in which Redis refuses all writes that need memory."""

    @contextlib.contextmanager
    def full():
        limit = redis_client.config_get("maxmemory")["maxmemory"]
        redis_client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            redis_client.config_set("maxmemory", limit)

    return full


def test_requests_are_refused_or_degraded_and_nothing_is_lost(user, full_redis, redis_client):
    """Given a turn that was accepted before, when Redis is full, then new work is refused with 503, reads and cancels
    are answered, and when there is room, work is accepted again.
    """
    accepted = user.create_response()

    with full_redis():
        refused = user.request("POST", "/v1/responses", json={"input": "hello", "background": True})
        assert_error(refused, 503)
        assert "retry-after" in refused.headers
        assert user.request("GET", f"/v1/responses/{accepted['id']}").json()["status"] == "queued"
        cancelled = user.request("POST", f"/v1/responses/{accepted['id']}/cancel")
        assert cancelled.json()["status"] == "cancelled"

    user.client.app.state.platform.gate._limiter._paused_until = 0.0  # as a second later
    assert user.create_response()["status"] == "queued"
    assert {job["state"] for job in user.jobs()} == {"cancelled", "queued"}
