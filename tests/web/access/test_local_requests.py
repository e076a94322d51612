"""Metrics are for operators, and for requests from the machine itself where nothing indicates a proxy."""

import pytest
from starlette.datastructures import Headers

from tests.web.api_client import app_client, assert_error
from web.access.gate import PROXY_HEADERS, AuthRequest, is_local
from web.access.rights import Rights


def auth_request(ip: str, **headers: str) -> AuthRequest:
    return AuthRequest(Headers(headers), ip, Rights.METRICS, 1, reads=True)


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.1.2.3", "::1"])
def test_request_from_the_machine_is_local(ip):
    assert is_local(auth_request(ip))


@pytest.mark.parametrize("ip", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "", "a.name.invalid"])
def test_request_from_elsewhere_is_not_local(ip):
    assert not is_local(auth_request(ip))


@pytest.mark.parametrize("header", PROXY_HEADERS)
def test_request_that_a_proxy_has_forwarded_is_not_local(header):
    assert not is_local(auth_request("127.0.0.1", **{header: "192.0.2.7"}))


def test_metrics_are_served_to_the_machine_itself(api):
    assert api.get("/metrics").status_code == 200


def test_metrics_are_not_served_to_a_forwarded_request(api):
    assert_error(api.get("/metrics", headers={"x-forwarded-for": "192.0.2.7"}), 401, code="invalid_api_key")


@pytest.mark.parametrize(
    "behind_a_proxy", [{"public_url": "https://ai.example.com"}, {"trusted_proxies": "192.0.2.0/24"}]
)
def test_metrics_need_an_operator_where_there_may_be_a_proxy_on_the_machine(settings, behind_a_proxy):
    # Given an installation with a public URL or a proxy, which may forward requests without a header
    with app_client(settings.model_copy(update=behind_a_proxy)) as client:
        # When the metrics are requested from the machine, then authentication is required
        assert_error(client.get("/metrics"), 401, code="invalid_api_key")


def test_metrics_with_an_address_of_their_own_are_not_on_the_main_port(settings):
    with app_client(settings.model_copy(update={"metrics_address": "127.0.0.1:9"})) as client:
        assert_error(client.get("/metrics"), 404)
        assert "/metrics" not in client.get("/openapi.json").json()["paths"]


TOKEN = "a-token-of-24-characters"


@pytest.mark.parametrize("authorization", [None, "Bearer another-token-of-28-letters", f"Token {TOKEN}"])
def test_metrics_with_a_token_are_not_served_to_the_machine_without_it(settings, authorization):
    headers = {"authorization": authorization} if authorization else {}
    with app_client(settings.model_copy(update={"metrics_token": TOKEN})) as client:
        assert_error(client.get("/metrics", headers=headers), 401, code="invalid_api_key")


def test_metrics_are_served_to_a_forwarded_request_with_the_token(settings):
    headers = {"authorization": f"Bearer {TOKEN}", "x-forwarded-for": "192.0.2.7"}
    with app_client(settings.model_copy(update={"metrics_token": TOKEN})) as client:
        assert client.get("/metrics", headers=headers).status_code == 200
        # The token is for nothing else
        assert_error(client.get("/v1/me", headers=headers), 401, code="invalid_api_key")
