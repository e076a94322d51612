"""Given a route table, when requests come, then rights come first, then the body, then the endpoint."""

import threading

import pytest
from starlette.responses import Response

from models.platform.errors import Conflict
from web.http.answers import json_answer
from web.routing import Call, Rights, Row, mount


def echo(call: Call) -> Response:
    return json_answer({"path": call.path, "query": dict(call.query), "body": call.body.decode()})


def who(call: Call) -> Response:
    return json_answer({"user_id": call.caller.user_id, "account_id": call.caller.account_id, "role": call.caller.role})


def thread(call: Call) -> Response:
    return Response(threading.current_thread().name)


async def loop(call: Call) -> Response:
    return Response(threading.current_thread().name)


def broken(call: Call) -> Response:
    raise ZeroDivisionError("the secret of the house")


def taken(call: Call) -> Response:
    raise Conflict("It exists.")


ROWS = (
    Row("POST", "/echo/{name}", echo, Rights.PUBLIC),
    Row("GET", "/echo/{name}", echo, Rights.PUBLIC),
    Row("GET", "/who", who, Rights.READ),
    Row("POST", "/who", who, Rights.READ),
    Row("GET", "/nobody", who, Rights.PUBLIC),
    Row("GET", "/thread", thread, Rights.PUBLIC),
    Row("GET", "/loop", loop, Rights.PUBLIC),
    Row("GET", "/broken", broken, Rights.PUBLIC),
    Row("GET", "/taken", taken, Rights.PUBLIC),
)


@pytest.fixture
def client(make_client):
    return make_client(*ROWS)


def test_an_endpoint_gets_path_query_and_body(client):
    answer = client.post("/echo/hello?x=1", content=b"text").json()

    assert answer == {"path": {"name": "hello"}, "query": {"x": "1"}, "body": "text"}


def test_a_member_is_known(client, alice):
    answer = client.get("/who").json()

    assert answer == {"user_id": alice.user_id, "account_id": alice.account_id, "role": "owner"}


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic abc", "Bearer a.b.c", "Bearer é", "Bearer " + "x" * 9000])
def test_a_stranger_is_refused(client, value):
    del client.headers["authorization"]
    headers = {} if value is None else {"authorization": value.encode()}

    response = client.get("/who", headers=headers)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["type"] == "authentication_error"


def test_a_public_endpoint_that_asks_who_it_is_gets_no_answer(client):
    assert client.get("/nobody").status_code == 401


def test_rights_come_before_the_body(client):
    del client.headers["authorization"]

    assert client.post("/who", content=b"x" * 3_000_000).status_code == 401


def test_plain_functions_run_in_threads_and_coroutines_on_the_loop(client):
    assert client.get("/thread").text != client.get("/loop").text


def test_an_unforeseen_error_tells_nothing(client):
    response = client.get("/broken")

    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in response.text


def test_a_permanent_conflict_is_not_repeated(client):
    response = client.get("/taken")

    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")


def test_an_unknown_address_is_a_404(client):
    response = client.get("/nowhere")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_another_method_is_a_405_that_names_the_right_ones(client):
    response = client.delete("/echo/x")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"


def test_head_is_get_without_a_body(client):
    response = client.head("/echo/x")

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize("address", ["/echo/a%00b", "/echo/a?x=%00"])
def test_nul_in_the_address_is_refused(client, address):
    assert client.get(address).status_code == 400


def test_a_callers_request_id_comes_back(client):
    assert client.get("/loop", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("value", ["a b", "x" * 200, "<script>"])
def test_an_odd_request_id_is_replaced(client, value):
    assert client.get("/loop", headers={"x-request-id": value}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_50_mb_is_refused_in_words(client, declared):
    block = b"x" * 1_000_000
    content = block * 50 if declared else (block for _ in range(50))

    response = client.post("/echo/x", content=content)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_table_with_one_line_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        mount([ROWS[0], ROWS[0]])
