"""One access line per request, with nothing that callers choose freely."""

import asyncio
import io
import json
import logging
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from ops.log_formats import EcsFormatter
from tests.ops.ecs_fields import check_line
from web.http.access_log import loggable_path
from web.http.middleware import RequestMiddleware

RESPONSE = "resp_01a223fb9d83701880648412d044face"


def request(route=None, parameters=None, *, app=None, level=logging.INFO, headers=(), **scope):
    """Serve one request; without a route, no route has its path."""

    async def answer(scope, receive, send):
        if route is not None:
            scope |= {"endpoint": SimpleNamespace(path=route), "path_params": parameters or {}}
        await (app or PlainTextResponse("hello"))(scope, receive, send)

    async def send(message):
        pass

    logging.getLogger("web.access").setLevel(level)
    scope = {"type": "http", "method": "GET", "http_version": "1.1", "path": "/hush", "query_string": b"q=hush"} | scope
    scope["headers"] = [(b"host", b"sangha"), (b"authorization", b"Bearer hush"), *headers]
    asyncio.run(RequestMiddleware(answer)(scope, None, send))


@pytest.fixture
def lines():
    """Return the access lines as JSON, once the requests are served."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EcsFormatter({}))
    logger = logging.getLogger("web.access")
    logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_line_has_method_path_status_and_duration(lines):
    request("/v1/responses/{response_id}", {"response_id": RESPONSE}, method="DELETE")

    (fields,) = lines()
    check_line(fields)
    assert fields["http.request.method"] == "DELETE"
    assert fields["url.path"] == f"/v1/responses/{RESPONSE}"
    assert fields["labels.route"] == "/v1/responses/{response_id}"
    assert fields["http.response.status_code"] == 200
    assert 0 < fields["event.duration"] < 10_000_000_000
    assert fields["event.dataset"] == "sangha.access"
    assert fields["message"].startswith(f"DELETE /v1/responses/{RESPONSE} 200 in ")


def test_line_has_the_request_id(lines):
    request("/v1/responses", headers=[(b"x-request-id", b"my-id")])

    assert lines()[0]["labels.request_id"] == "my-id"


@pytest.mark.parametrize(
    ("route", "parameters", "path"),
    [
        ("/v1/models/{model:path}", {"model": "hush/hush"}, "/v1/models/{model}"),
        ("/v1/agents/{agent_id}", {"agent_id": "hush"}, "/v1/agents/{agent_id}"),
        ("/v1/agents/{agent_id}", {"agent_id": "sk-hush"}, "/v1/agents/{agent_id}"),
        ("/v1/a/{a_id}/b/{b_id}", {"a_id": RESPONSE, "b_id": "hush"}, f"/v1/a/{RESPONSE}/b/{{b_id}}"),
        ("unmatched", {}, "unmatched"),
    ],
)
def test_path_has_ids_and_no_other_parameters(route, parameters, path):
    assert loggable_path(route, parameters) == path


def test_no_line_has_query_headers_or_an_unknown_path(lines):
    request()
    request(method="HUSH")

    unmatched, unknown_method = lines()
    assert unmatched["url.path"] == "unmatched"
    assert unknown_method["http.request.method"] == "OTHER"
    assert "hush" not in json.dumps([unmatched, unknown_method]).lower()


def test_error_has_a_line_with_its_status(lines):
    async def fail(scope, receive, send):
        raise ValueError("hush")

    request("/v1/responses", app=fail)

    (fields,) = lines()
    assert fields["http.response.status_code"] == 500
    assert "hush" not in json.dumps(fields)


def test_disconnect_before_the_response_is_status_499(lines):
    async def disconnect(scope, receive, send):
        raise ClientDisconnect

    request("/v1/responses", app=disconnect)

    assert lines()[0]["http.response.status_code"] == 499


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_probes_are_logged_at_debug_only(lines, level):
    request("/healthz", level=level)

    assert len(lines()) == (level == logging.DEBUG)
