"""Requests that name another account in headers, bodies, queries or paths reach only the caller's own data."""

import logging

import pytest

from tests.web.api_client import assert_error


@pytest.fixture
def foreign_id(other_user):
    """The id of a conversation of another account."""
    return other_user.request("POST", "/v1/conversations", json={}).json()["id"]


@pytest.mark.parametrize(
    "header",
    ["x-account-id", "x-sangha-account", "openai-organization", "openai-project", "x-user-id", "x-original-url"],
)
def test_headers_cannot_select_another_account(user, other_user, foreign_id, header):
    values = {"x-user-id": other_user.caller.user_id, "x-original-url": f"/v1/conversations/{foreign_id}"}
    value = values.get(header, other_user.caller.account_id)

    answer = user.request("GET", f"/v1/conversations/{foreign_id}", headers={header: value})

    assert_error(answer, 404, code="not_found")


@pytest.mark.parametrize("name", ["account_id", "account", "user_id", "caller", "operator", "role"])
def test_account_fields_in_bodies_are_ignored_and_in_queries_rejected(user, other_user, name):
    value = other_user.caller.account_id

    created = user.request("POST", "/v1/conversations", json={name: value})

    assert created.headers["x-sangha-ignored"] == name
    assert user.request("GET", f"/v1/conversations/{created.json()['id']}").status_code == 200
    assert_error(other_user.request("GET", f"/v1/conversations/{created.json()['id']}"), 404)
    for path in ("/v1/jobs", "/v1/api_keys", "/v1/files"):
        assert_error(user.request("GET", path, params={name: value}), 400, param=name)


def test_two_authorization_headers_are_rejected(api, user, other_user):
    headers = [("authorization", f"Bearer {caller.token}") for caller in (user, other_user)]

    assert_error(api.get("/v1/models", headers=headers), 400, code="repeated_header")


@pytest.mark.parametrize("header", ["api-key", "x-api-key", "cookie", "proxy-authorization"])
def test_credentials_in_other_headers_are_ignored(api, user, header):
    assert_error(api.get("/v1/models", headers={header: f"Bearer {user.token}"}), 401)


def test_credentials_in_the_query_are_ignored(api, user):
    assert_error(api.get("/v1/models", params={"access_token": user.token}), 401)


@pytest.mark.parametrize(
    "pattern", ["own/../{}", "own%2F..%2F{}", "..%2Fconversations%2F{}", "%2e%2e/{}", "{}%20", "{}%0a", "{};", "{}'--"]
)
def test_path_traversal_and_injection_in_a_path_are_a_404(user, foreign_id, pattern):
    answer = user.request("GET", f"/v1/conversations/{pattern.format(foreign_id)}")

    assert answer.status_code == 404, answer.text


def test_an_encoded_slash_does_not_reach_a_route_with_other_rights(api, user):
    for path in ("/v1/models/..%2F..%2Fadmin%2Faccounts", "/v1/models/../../admin/accounts", "//admin/accounts"):
        answer = user.request("GET", path)
        assert answer.status_code in (403, 404), path
        assert "data" not in answer.json()


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "\\", "'; DROP TABLE accounts; --", "acct_' || ''", "{}", "é'"])
def test_sql_in_a_filter_matches_nothing(user, other_user, text):
    other_user.request("POST", "/v1/api_keys", json={"name": "theirs"})

    for path, name in [
        ("/v1/audit_events", "action"),
        ("/v1/audit_events", "user_id"),
        ("/v1/jobs", "kind"),
        ("/v1/api_keys", "after"),
        ("/v1/jobs", "after"),
    ]:
        answer = user.request("GET", path, params={name: text})
        assert (answer.status_code, answer.json().get("data")) == (200, []), (path, answer.text)


@pytest.mark.parametrize("name", ["x\nINFO forged", "x\r\nforged", "x\u0000", "x\u0085forged", "x\x1b[2J"])
def test_control_characters_in_a_name_are_rejected(user, name):
    assert_error(user.request("POST", "/v1/api_keys", json={"name": name}), 400)


def test_request_data_cannot_forge_log_lines(api, user, caplog):
    caplog.set_level(logging.INFO)

    user.request("GET", "/v1/conversations/x%0AINFO%20forged", headers={"user-agent": "x\\nforged"})
    api.get("/v1/models%0d%0aforged", headers={"authorization": "Bearer sk-x%0aforged", "x-request-id": "a b"})

    assert not [line for line in caplog.text.splitlines() if line.startswith(("INFO forged", "forged"))]
