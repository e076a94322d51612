"""Every route answers odd bodies, queries and paths with the right status and a named field, never with a 5xx."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from models.platform.ids import new_id
from tests.web.api_client import app_client, assert_error
from tests.web.principals import Principals, Resources
from web.api.routing import Route
from web.routes import ROUTES

#: Bodies that no route accepts, with their codes.
MALFORMED = {
    b"null": "invalid_json",
    b"[]": "invalid_json",
    b'"text"': "invalid_json",
    b"{": "invalid_json",
    b'{"a": 1}{"a": 1}': "invalid_json",
    b'{"a": NaN}': "invalid_json",
    b'{"a": -Infinity}': "invalid_json",
    b'{"a": 1e999}': "invalid_json",
    b'{"a": ' + b"9" * 5000 + b"}": "invalid_json",
    b'{"a": 1, "a": 1}': "invalid_json",
    b'{"a": {"b": 1, "b": 1}}': "invalid_json",
    b'{"a": "\xff"}': "invalid_json",
    b'{"a": "\xed\xa0\x80"}': "invalid_json",
    b'{"a": "\\ud800"}': "invalid_json",
    b'{"a": "\\u0000"}': "invalid_character",
    b'{"\\u0000": 1}': "invalid_character",
    b"\xef\xbb\xbf{}": "invalid_json",
    '{"a": 1}'.encode("utf-16"): "invalid_json",
    b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}": "invalid_json",
    b"[" * 50_000: "invalid_json",
    b'{"a": ' * 5000: "invalid_json",
}

#: Values for each field of a body, and for each parameter of a query.
VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 1e308, -0.5, "", " ", "x" * 20_000,
    "\x01\x7f\u202e", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2026-02-30T00:00:00Z",
    [], [[]], [None], ["x"] * 200, {}, {"": {}}, {"x" * 300: "x"}, [{"type": "message"}],
]  # fmt: skip
PARAMETERS = [
    "", "-1", "0", "1.5", "1e999", "NaN", "9" * 30, str(2**63), "true", "%00", "%ff", "%ed%a0%80", "x" * 5000,
    "%01%e2%80%ae", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "2026-02-30", "[]", "%F0%9F%98%80",
]  # fmt: skip
IDS = ["%ff", "%ed%a0%80", "x" * 3000, "%F0%9F%98%80", "%2e%2e", "0" * 32, "%00", "'", "%25s"]

#: Bodies into which a value is put; `{}` suffices for the other routes.
BODIES: dict[str, dict[str, Any]] = {
    "POST /signup": {"email": "odd@example.com", "password": "correct horse battery"},
    "POST /login": {"email": "odd@example.com", "password": "correct horse battery"},
    "POST /auth/refresh": {"refresh_token": "x"},
    "POST /auth/password/change": {"current_password": "x", "new_password": "correct horse battery"},
    "POST /auth/email/verify": {"token": "x"},
    "POST /auth/password/reset": {"token": "x", "password": "correct horse battery"},
    "POST /auth/invitations/accept": {"token": "x"},
    "POST /v1/responses": {"input": "x", "background": True},
    "POST /v1/conversations/{conversation_id}/items": {"items": [{"role": "user", "content": "x"}]},
    "POST /v1/schedules": {
        "name": "odd",
        "trigger": {"type": "interval", "seconds": 3600},
        "work": {"kind": "turn", "request": {"input": "x"}},
    },
    "POST /v1/api_keys": {"name": "odd"},
    "POST /v1/approvals/{approval_id}": {"approve": False},
    "POST /v1/webhook_endpoints": {"url": "https://example.com/", "event_types": ["*"]},
    "POST /v1/webhook_endpoints/{endpoint_id}/test": {"event_type": "response.completed"},
    "POST /v1/webhook_endpoints/{endpoint_id}/replay": {"since": 0},
    "POST /v1/mcp_servers": {"label": "odd", "url": "https://mcp.example.com/"},
    "PATCH /v1/memories/{memory_id}": {"importance": 0.5},
    "POST /v1/account/invitations": {"email": "odd@example.com"},
    "PUT /admin/plans/{plan_id}": {"name": "odd", "limits": {}},
    "POST /billing/credits/top_up": {"amount": "5.00"},
    "PUT /billing/credits/auto_top_up": {"below": "5.00", "amount": "5.00", "monthly_limit": "50.00"},
    "PUT /admin/billing/accounts/{account_id}/tax": {"rate": "19"},
    "POST /admin/billing/accounts/{account_id}/credits": {"amount": "5.00", "reason": "odd"},
    "POST /admin/billing/invoices/{invoice_id}/credit_notes": {"amount": "0.01", "reason": "odd"},
    "PUT /billing/spending_limits/{scope}": {"amount": "1.00"},
}

#: Routes that wait for a worker, which is not there: a field that does not exist has strict ones answer at once.
WAITING = {
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/memories",
    "/v1/memories/search",
    "/v1/memories/{memory_id}",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/quotes",
    "/v1/mcp_servers/{server_id}/test",
    "/v1/webhook_endpoints/{endpoint_id}/test",
}
UNKNOWN, STRICT = {"zz_unknown": 1}, {"x-sangha-strict": "1"}

FIXED = {
    "plan_id": "odd",
    "name": "index.css",
    "model": "default",
    "provider": "nobody",
    "gateway": "test",
    "charge_id": "x",
    "customer_id": "x",
    "scope": "account",
}


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


WITH_BODY = [route for route in ROUTES if route.body is not None and route.form is None]
WITH_QUERY = [route for route in ROUTES if route.query is not None]
WITH_PATH = [route for route in ROUTES if "{" in route.path]


@pytest.fixture(scope="module")
def api(settings) -> Iterator[httpx.Client]:
    """The whole application, with a high rate limit per address."""
    with app_client(settings.model_copy(update={"visits_per_minute": 1_000_000})) as client:
        yield client


@pytest.fixture
def send(api, database, settings):
    """`send(route, content=…, query=…, id_=…)` → the answer to an operator, or to the owner of what the path names."""
    principals = Principals(api, database, settings)
    resources = Resources(principals, database)
    with database.connection() as connection:
        connection.execute("UPDATE accounts SET plan_id = 'default' WHERE id = %s", (principals.account_id,))

    def send(route: Route, *, query: str = "", id_: str = "", **options: Any) -> httpx.Response:
        path = re.sub(r"{(\w+)[^}]*}", lambda match: id_ or FIXED.get(match[1]) or resources[match[1]], route.path)
        principal = "operator" if route.rights.operator else "owner"
        headers = {"content-type": "application/json", **(STRICT if route.path in WAITING else {})}
        return principals.request(principal, route.method, path + query, headers=headers, **options)

    yield send
    with database.connection() as connection:
        connection.execute("DELETE FROM plan_versions WHERE plan_id = 'odd'")
        connection.execute("DELETE FROM plans WHERE id = 'odd'")
    principals.delete(database)


def assert_named(answer: httpx.Response, names: Iterator[str] | list[str], what: object) -> None:
    """Assert that an answer is no 5xx, and that a rejection of a value names a field or parameter of the request."""
    assert answer.status_code < 500, (what, answer.text)
    if answer.status_code < 400:
        return
    assert_error(answer, answer.status_code)
    error = answer.json()["error"]
    if answer.status_code == 400 and error["code"] not in ("invalid_character", "nothing_to_change"):
        assert re.split(r"[.\[]", error["param"] or "")[0] in names, (what, error)


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
def test_a_malformed_body_is_rejected_as_such(route: Route, send):
    for body, code in MALFORMED.items():
        assert_error(send(route, content=body), 400, code=code)


@pytest.mark.parametrize("route", WITH_BODY, ids=name)
def test_an_odd_value_of_a_field_is_accepted_or_rejected_by_name(route: Route, send):
    assert route.body is not None
    base = BODIES.get(name(route), {}) | (UNKNOWN if route.path in WAITING else {})
    for field in route.body.model_fields:
        for value in VALUES:
            if (route.path, field, value) == ("/v1/responses", "background", None):
                continue  # waits for its end
            body = {**base, field: value, **({"background": True} if "background" in base else {})}
            if route.path == "/signup" and field != "email":
                body["email"] = f"{new_id('odd')}@example.com"
            answer = send(route, content=json.dumps(body))
            assert_named(answer, [*route.body.model_fields, *base, *UNKNOWN], (field, value))


@pytest.mark.parametrize("route", WITH_QUERY, ids=name)
def test_an_odd_value_of_a_parameter_is_accepted_or_rejected_by_name(route: Route, send):
    assert route.query is not None
    body = {"json": BODIES.get(name(route), {})} if route.body is not None else {}
    body |= {"content": '{"text": "odd"}'} if route.upload_type else {}
    for parameter in route.query.model_fields:
        for value in PARAMETERS:
            for query in (f"?{parameter}={value}", f"?{parameter}={value}&{parameter}=x", f"?{parameter}[]={value}"):
                query += "&zz_unknown=1" if name(route) == "DELETE /v1/memories" else ""
                answer = send(route, query=query, **body)
                if route.streams and answer.status_code == 503:
                    continue  # the journal of a job that no worker ever ran
                assert_named(answer, [*route.query.model_fields, *UNKNOWN], query)


@pytest.mark.parametrize("route", WITH_PATH, ids=name)
def test_an_odd_id_is_not_found(route: Route, send):
    body = {"json": BODIES.get(name(route), {})} if route.body is not None else {}
    for id_ in IDS:
        answer = send(route, id_=id_, **body)
        assert answer.status_code < 500, (id_, answer.text)
