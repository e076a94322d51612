"""Requests with the name of another server are rejected, against DNS rebinding."""

import pytest
from starlette.exceptions import HTTPException

from models.platform.settings import Settings
from tests.web.api_client import app_client, assert_error
from web.http.hosts import AllowedHosts


def admits(host, **settings):
    try:
        AllowedHosts.of(Settings(**settings)).check(host.encode())
    except HTTPException as error:
        return error.status_code != 421
    return True


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "app.localhost:8000",
        "127.0.0.1:8000",
        "192.168.1.5",
        "[::1]:8000",
        "[fe80::1]",
        "web:8000",
    ],
)
def test_addresses_and_names_of_the_machine_are_admitted(host):
    assert admits(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_another_name_with_a_dot_is_rejected(host):
    assert not admits(host)


def test_configured_names_are_admitted():
    assert admits("api.example.com", public_url="https://api.example.com")
    assert admits("API.example.com.:443", public_url="https://api.example.com")
    assert admits("sangha.default.svc", allowed_hosts="sangha.default.svc,other.example")
    assert admits("evil.example", allowed_hosts="*")
    assert not admits("evil.example", public_url="https://api.example.com", allowed_hosts="other.example")


def test_a_rebound_name_reaches_no_route(settings):
    with app_client(settings) as client:
        for path in ("/", "/healthz", "/metrics", "/v1/me"):
            assert_error(client.get(path, headers={"host": "evil.example:8000"}), 421, code="misdirected_request")
