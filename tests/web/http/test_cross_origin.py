"""Pages of other origins use the API where SANGHA_CORS_ORIGINS names them, and never with cookies."""

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response

from models.platform.errors import Conflict, LimitExceeded, Unavailable
from tests.web.api_client import ApiUser, app_client, assert_error
from tests.web.conftest import TrustingGate
from web.access.rights import Rights
from web.api.request import Request
from web.api.routing import Route
from web.app import build
from web.http.bodies import MAX_BYTES
from web.http.cross_origin import EXPOSED_HEADERS
from web.routes import ROUTES

APP = "https://app.example.com"
ALLOW_ORIGIN = "access-control-allow-origin"
REQUESTED_HEADERS = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"


def fail(request: Request) -> Response:
    errors = {
        "conflict": Conflict("It exists."),
        "limit": LimitExceeded("Too many.", retry_after=1),
        "bug": ZeroDivisionError("a bug"),
        "outage": Unavailable("Away."),
    }
    raise errors[request.path_params["what"]]


def hello(request: Request) -> Response:
    return PlainTextResponse("hello", headers={"vary": "accept"})


EXAMPLES = (Route("POST", "/fail/{what}", fail, Rights.PUBLIC), Route("GET", "/hello", hello, Rights.PUBLIC))


@pytest.fixture
def open_to(offline_settings, serve):
    """`open_to(*origins)` → a client of an application that pages of these origins may use."""

    def open_to(*origins: str, routes=EXAMPLES) -> httpx.Client:
        app = build(offline_settings.model_copy(update={"cors_origins": origins}), routes)
        client = serve(app)
        app.state.platform.gate = TrustingGate(app.state.platform.tokens)
        return client

    return open_to


@pytest.fixture(scope="module")
def api(settings):
    """The whole application, open to APP."""
    with app_client(settings.model_copy(update={"cors_origins": (APP,)})) as client:
        yield client


def preflight(client: httpx.Client, path: str, origin: str = APP, method: str = "POST", **more: str) -> httpx.Response:
    """Ask as a browser does before it sends a request."""
    asked = {"access-control-request-method": method, "access-control-request-headers": REQUESTED_HEADERS}
    return client.options(path, headers={"origin": origin, **asked, **more})


def test_a_preflight_request_needs_no_credential(api):
    answer = preflight(api, "/v1/chat/completions")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOW_ORIGIN] == APP
    assert answer.headers["access-control-allow-headers"] == REQUESTED_HEADERS
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method_of_the_route_table_is_allowed(open_to, method):
    assert method in {route.method for route in ROUTES}
    assert preflight(open_to("*"), "/hello", method=method).status_code == 204


@pytest.mark.parametrize(("origin", "method"), [("https://evil.example", "POST"), (APP, "TRACE"), ("null", "POST")])
def test_another_origin_or_method_is_refused(open_to, origin, method):
    answer = preflight(open_to(APP), "/hello", origin, method)

    assert "SANGHA_CORS_ORIGINS" in assert_error(answer, 400, code="cross_origin_request_refused")
    assert answer.headers.get(ALLOW_ORIGIN) in (None, APP)


@pytest.mark.parametrize(
    ("what", "status"), [("conflict", 409), ("limit", 429), ("bug", 500), ("outage", 503), ("hello", 200)]
)
def test_a_page_can_read_every_answer(open_to, what, status):
    client = open_to(APP)
    path, method = ("/hello", "GET") if what == "hello" else (f"/fail/{what}", "POST")

    answer = client.request(method, path, headers={"origin": APP, "content-type": "application/json"})

    assert (answer.status_code, answer.headers[ALLOW_ORIGIN]) == (status, APP)
    assert set(EXPOSED_HEADERS) == set(answer.headers["access-control-expose-headers"].split(", "))
    assert "Origin" in answer.headers["vary"]


def test_answers_before_and_after_authentication_have_the_header(api, user: ApiUser):
    large = b'{"input": "' + b"x" * MAX_BYTES + b'"}'
    answers = [
        api.post("/v1/responses", json={}, headers={"origin": APP}),
        api.get("/v1/nowhere", headers={"origin": APP}),
        api.get("/healthz", headers={"origin": APP, "host": "evil.example"}),
        user.request("POST", "/v1/responses", content=large, headers={"origin": APP}),
        user.request("POST", "/v1/responses", json={"input": 1}, headers={"origin": APP}),
    ]

    assert [answer.status_code for answer in answers] == [401, 404, 421, 413, 400]
    assert [answer.headers[ALLOW_ORIGIN] for answer in answers] == [APP] * 5


def test_a_stream_has_the_header(user: ApiUser):
    headers = {"authorization": f"Bearer {user.token}", "origin": APP}

    with user.client.stream("POST", "/v1/responses", json={"input": "x", "stream": True}, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers[ALLOW_ORIGIN] == APP


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.com.evil.example", "http://x", "null"])
def test_another_origin_gets_no_header(open_to, origin):
    assert ALLOW_ORIGIN not in open_to(APP).get("/hello", headers={"origin": origin}).headers


def test_any_origin_may_be_allowed_but_not_its_cookies(open_to):
    client = open_to("*")

    answers = [
        preflight(client, "/hello", "null"),
        client.get("/hello", headers={"origin": "https://evil.example", "cookie": "sangha_pass=x"}),
    ]

    assert [answer.headers[ALLOW_ORIGIN] for answer in answers] == ["*", "*"]
    assert all("access-control-allow-credentials" not in answer.headers for answer in answers)


def test_answers_without_an_origin_vary_by_it_so_that_no_cache_mixes_them(open_to):
    answer = open_to(APP).get("/hello")

    assert answer.headers["vary"] == "accept, Origin"
    assert ALLOW_ORIGIN not in answer.headers


def test_nothing_is_allowed_without_the_setting(make_client):
    client = make_client(*EXAMPLES)

    assert_error(preflight(client, "/hello"), 405)
    answer = client.get("/hello", headers={"origin": APP})
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert answer.headers["vary"] == "accept"


@pytest.mark.parametrize("path", ["/auth/oidc/exchange", "/auth/oidc/corp", "/auth/oidc/corp/callback", "/metrics"])
def test_what_trusts_a_cookie_or_the_network_stays_closed(open_to, path):
    client = open_to("*", routes=ROUTES)

    assert_error(preflight(client, path), 405)
    headers = {"origin": APP, "content-type": "text/plain"}
    answers = [client.get(path, headers=headers), client.post(path, headers=headers)]
    assert all(ALLOW_ORIGIN not in answer.headers for answer in answers)


def test_every_route_that_admits_this_machine_is_closed():
    assert all(route.same_origin for route in ROUTES if route.rights.local)


def test_a_page_of_an_allowed_origin_must_send_json_to_public_routes(open_to):
    client = open_to(APP)

    answer = client.post("/fail/conflict", headers={"origin": APP, "content-type": "text/plain"})

    assert_error(answer, 415)
    assert answer.headers[ALLOW_ORIGIN] == APP


def test_a_listed_origin_may_use_a_server_in_a_private_network(open_to):
    asked = {"access-control-request-private-network": "true"}

    assert preflight(open_to(APP), "/hello", **asked).headers["access-control-allow-private-network"] == "true"
    assert preflight(open_to("*"), "/hello", **asked).status_code == 400
