"""The route table: authentication and rights first, then the body, then the endpoint."""

import threading

import pytest
from starlette.responses import Response

from models.platform.errors import Conflict
from web.access.rights import Rights
from web.api.request import Request
from web.api.routing import Route, mount
from web.http.responses import json_response


def echo(request: Request) -> Response:
    return json_response({"path": request.path_params, "query": dict(request.query), "body": request.body.decode()})


def whoami(request: Request) -> Response:
    return json_response(
        {"user_id": request.caller.user_id, "account_id": request.caller.account_id, "role": request.caller.role}
    )


def thread(request: Request) -> Response:
    return Response(threading.current_thread().name)


async def loop(request: Request) -> Response:
    return Response(threading.current_thread().name)


def broken(request: Request) -> Response:
    raise ZeroDivisionError("an internal secret")


def conflict(request: Request) -> Response:
    raise Conflict("It exists.")


ROUTES = (
    Route("POST", "/echo/{name}", echo, Rights.PUBLIC),
    Route("GET", "/echo/{name}", echo, Rights.PUBLIC),
    Route("GET", "/whoami", whoami, Rights.READ),
    Route("POST", "/whoami", whoami, Rights.READ),
    Route("GET", "/public-whoami", whoami, Rights.PUBLIC),
    Route("GET", "/thread", thread, Rights.PUBLIC),
    Route("GET", "/loop", loop, Rights.PUBLIC),
    Route("GET", "/broken", broken, Rights.PUBLIC),
    Route("GET", "/conflict", conflict, Rights.PUBLIC),
)


@pytest.fixture
def client(make_client):
    return make_client(*ROUTES)


def test_an_endpoint_gets_path_query_and_body(client):
    response = client.post("/echo/hello?x=1", content=b"text").json()

    assert response == {"path": {"name": "hello"}, "query": {"x": "1"}, "body": "text"}


def test_the_endpoint_gets_the_authenticated_caller(client, alice):
    response = client.get("/whoami").json()

    assert response == {"user_id": alice.user_id, "account_id": alice.account_id, "role": "owner"}


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic abc", "Bearer a.b.c", "Bearer é", "Bearer " + "x" * 9000])
def test_missing_and_malformed_tokens_are_rejected(client, value):
    del client.headers["authorization"]
    headers = {} if value is None else {"authorization": value.encode()}

    response = client.get("/whoami", headers=headers)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["type"] == "authentication_error"


def test_a_public_endpoint_that_needs_a_caller_answers_401(client):
    assert client.get("/public-whoami").status_code == 401


def test_rights_are_checked_before_the_body_is_read(client):
    del client.headers["authorization"]

    assert client.post("/whoami", content=b"x" * 3_000_000).status_code == 401


def test_functions_run_in_threads_and_coroutines_on_the_event_loop(client):
    assert client.get("/thread").text != client.get("/loop").text


def test_an_unexpected_error_reveals_only_the_request_id(client):
    response = client.get("/broken")

    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in response.text


def test_a_permanent_conflict_is_marked_as_not_retryable(client):
    response = client.get("/conflict")

    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")


def test_an_unknown_path_is_a_404(client):
    response = client.get("/nowhere")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_an_unsupported_method_is_a_405_with_the_allowed_methods(client):
    response = client.delete("/echo/x")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"


def test_head_is_get_without_a_body(client):
    response = client.head("/echo/x")

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize("url", ["/echo/a%00b", "/echo/a?x=%00"])
def test_a_nul_character_in_the_url_is_rejected(client, url):
    assert client.get(url).status_code == 400


def test_a_request_id_of_the_caller_is_returned(client):
    assert client.get("/loop", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("value", ["a b", "x" * 200, "<script>"])
def test_a_malformed_request_id_is_replaced(client, value):
    assert client.get("/loop", headers={"x-request-id": value}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_50_mb_is_rejected_with_an_error_object(client, declared):
    block = b"x" * 1_000_000
    content = block * 50 if declared else (block for _ in range(50))

    response = client.post("/echo/x", content=content)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_duplicate_route_is_rejected():
    with pytest.raises(ValueError, match="twice"):
        mount([ROUTES[0], ROUTES[0]])


def test_paths_that_create_turns_are_compared_first_and_the_others_in_the_order_of_the_table():
    # Given a table with a path that creates turns at its end
    plain = [Route("GET", path, echo, Rights.READ) for path in ("/b", "/a/{id}", "/a")]
    turn = Route("POST", "/turns", echo, Rights.INFERENCE, streams=True, creates=True, handles_repeats=True)
    # When it is mounted
    mounted = mount([*plain, turn])
    # Then it is the first
    assert [route.path for route in mounted] == ["/turns", "/b", "/a/{id}", "/a"]
