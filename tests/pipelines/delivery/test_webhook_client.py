"""The client posts to admitted hosts, uses connections again, and repeats a request that an idle one has lost."""

import socket
import threading
from contextlib import contextmanager

import pytest

from pipelines.agents import event_loop
from pipelines.agents.egress import parse_policy
from pipelines.delivery.webhook_client import WebhookClient

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def server(*connections):
    """Serve connections in turn: each is a list of answers to its requests, after which it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests = []

    def serve():
        for answers in connections:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    request = b""
                    while not request.endswith(b"\r\n\r\n{}"):
                        request += connection.recv(65_536)
                    requests.append(request)
                    if answer is None:
                        break
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a?b=c", requests
    finally:
        listener.close()


@pytest.fixture
def client():
    client = WebhookClient(parse_policy(("127.0.0.1", "xn--mnchen-3ya.test"), ()), timeout=5)
    yield client
    event_loop.run(client.aclose, lambda: False)


def post(client, url):
    return event_loop.run(lambda: client.post(url, {"webhook-id": "evt_1"}, b"{}"), lambda: False)


def test_a_request_has_its_target_host_length_and_body(client):
    with server([ANSWER]) as (url, requests):
        assert post(client, url).accepted
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert b"Content-Length: 2" in head
    assert b"Host: 127.0.0.1:" in head
    assert body == b"{}"


def test_a_request_that_an_idle_connection_has_lost_is_repeated_at_once(client):
    # Given a server that closes its connection when the second request arrives
    with server([ANSWER, None], [ANSWER]) as (url, requests):
        assert post(client, url).accepted
        # When it gets that
        answer = post(client, url)
    # Then the request is repeated on another connection
    assert answer.accepted
    assert len(requests) == 3


def test_a_request_that_a_new_connection_has_lost_is_not_repeated(client):
    with server([None], [ANSWER]) as (url, requests):
        answer = post(client, url)
    assert (answer.status_code, answer.accepted) == (None, False)
    assert "failed" in answer.error
    assert len(requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01",
    ],
)
def test_an_answer_that_is_not_http_is_an_error(client, answer):
    with server([answer]) as (url, _):
        assert not post(client, url).accepted


@pytest.mark.parametrize(
    "url", ["http://example.test/", "http://127.0.0.1:99999/", "http://", "gopher://127.0.0.1/", "http://münchen.test/"]
)
def test_what_cannot_be_sent_is_an_error(client, url):
    answer = post(client, url)
    assert answer.status_code is None
    assert answer.error


def test_a_host_that_refuses_the_connection_is_an_error(client):
    with server() as (url, _):
        pass
    assert "The request failed" in post(client, url).error
