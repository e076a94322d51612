"""Warnings in `/readyz` about what Redis may lose."""

from pathlib import Path

from models.platform.redis_client import connect
from web.access.rights import Rights
from web.api.routing import Route
from web.api.system import probes
from web.api.system.checks import redis_warnings


def test_readyz_shows_warnings_and_is_ready(make_client):
    # Given a Redis that may evict journals
    client = make_client(Route("GET", "/readyz", probes.readyz, Rights.PUBLIC))
    client.app.state.platform.checks.clear()
    client.app.state.platform.facts.update(warnings=lambda: ["Redis: maxmemory-policy is volatile-lru"])
    # When the process is asked whether it is ready
    response = client.get("/readyz")
    # Then it is, and says so
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert response.json()["warnings"] == ["Redis: maxmemory-policy is volatile-lru"]


def test_a_redis_that_keeps_everything_has_no_warnings(redis_client):
    assert redis_warnings(redis_client) == []


def test_an_unavailable_redis_has_no_warnings(tmp_path: Path):
    assert redis_warnings(connect(f"unix://{tmp_path}/nothing.sock")) == []
