"""Connections to endpoints: how responses are framed, and when a connection is used again."""

import socket
import threading
from collections.abc import Iterator

import httpcore
import pytest

from pipelines.inference.openai.http1_connection import MAX_HEAD, Http1Connection, Http1Pool, ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = HEAD + b"Content-Length: 2\r\n\r\nok"


class RawServer:
    """Sends each request's response as given, and then closes the connection if no other response is left."""

    def __init__(self, *responses: bytes) -> None:
        self._responses = list(responses)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        self.connections = 0
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Wait until all responses are sent."""
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while self._responses:
            connection, _ = self._socket.accept()
            self.connections += 1
            with connection:
                while self._responses and (request := connection.recv(65536)):
                    self.requests.append(request)
                    connection.sendall(self._responses.pop(0))


@pytest.fixture
def pool() -> Iterator[Http1Pool]:
    pool = Http1Pool(keepalive_expiry=60)
    with pool:
        yield pool


def post(pool: Http1Pool, server: RawServer) -> tuple[int, bytes]:
    """Send a request and return the status and the body of its response."""
    headers = [("Host", "test"), ("Content-Length", "5")]
    extensions = {"timeout": {"connect": 5.0, "write": 5.0, "read": 5.0}}
    response = pool.request("POST", server.url, headers=headers, content=b"hello", extensions=extensions)
    return response.status, response.content


def test_a_request_is_sent_as_one_message(pool: Http1Pool) -> None:
    server = RawServer(SIZED)

    assert post(pool, server) == (200, b"ok")

    server.close()
    assert server.requests == [b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"]


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        pytest.param(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, b"abc", id="chunks"),
        pytest.param(CHUNKED + b"1\r\na\r\n0\r\nX-Trailer: b\r\n\r\n", 200, b"a", id="chunks with a trailer"),
        pytest.param(HEAD + b"\r\nabc", 200, b"abc", id="until the connection is closed"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED, 200, b"ok", id="after an interim response"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="without a body"),
        pytest.param(SIZED + b"HTTP/1.1 500 Error\r\n\r\n", 200, b"ok", id="followed by another response"),
        pytest.param(SIZED + b"garbage", 200, b"ok", id="followed by garbage"),
    ],
)
def test_a_response_is_read_to_its_end(pool: Http1Pool, response: bytes, status: int, body: bytes) -> None:
    server = RawServer(response)

    assert post(pool, server) == (status, body)

    server.close()


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(b"", id="no response"),
        pytest.param(HEAD, id="half a head"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(HEAD + b"X: " + b"x" * MAX_HEAD, id="an endless head"),
        pytest.param(HEAD + b"Content-Length: 3\r\n\r\nok", id="a body that is too short"),
        pytest.param(CHUNKED + b"2\r\nab\r\n", id="chunks without an end"),
        pytest.param(CHUNKED + b"z\r\n", id="an invalid chunk"),
        pytest.param(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", id="two framings"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="upgrade"),
    ],
)
def test_an_incomplete_or_invalid_response_is_an_error(pool: Http1Pool, response: bytes) -> None:
    server = RawServer(response)

    with pytest.raises((httpcore.RemoteProtocolError, httpcore.ReadError)):
        post(pool, server)

    server.close()
    assert pool.connections == []


def test_a_connection_is_used_again_after_a_complete_response(pool: Http1Pool) -> None:
    server = RawServer(CHUNKED + b"1\r\na\r\n0\r\n\r\n", SIZED)

    assert [post(pool, server), post(pool, server)] == [(200, b"a"), (200, b"ok")]

    server.close()
    assert server.connections == 1


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", id="the server refuses"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/1.0"),
        pytest.param(SIZED + SIZED, id="more than the response was sent"),
        pytest.param(SIZED + b"garbage", id="garbage follows"),
    ],
)
def test_a_connection_is_closed_after_a_response_that_does_not_allow_another(pool: Http1Pool, response: bytes) -> None:
    server = RawServer(response, SIZED)

    post(pool, server)

    assert pool.connections == []
    post(pool, server)
    server.close()
    assert server.connections == 2


def test_a_response_abandoned_before_its_end_closes_the_connection(pool: Http1Pool) -> None:
    server = RawServer(CHUNKED + b"1\r\na\r\n")
    extensions = {"timeout": {"connect": 5.0, "write": 5.0, "read": 5.0}}

    with pool.stream("GET", server.url, extensions=extensions) as response:
        assert next(response.iter_stream()) == b"a"

    server.close()
    assert pool.connections == []


def test_chunks_that_arrive_together_are_one_piece_of_the_body() -> None:
    parser = ResponseParser()

    parser.feed(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")

    assert parser.take_body() == b"ab"
    assert parser.take_body() == b""


def test_a_connection_refuses_a_second_request_until_the_response_ends() -> None:
    request = httpcore.Request("GET", "http://test/", extensions={"timeout": {}})
    stream = httpcore.MockStream([CHUNKED, b"0\r\n\r\n", SIZED])
    connection = Http1Connection(request.url.origin, stream, None)
    response = connection.handle_request(request)

    with pytest.raises(httpcore.ConnectionNotAvailable):
        connection.handle_request(request)

    assert response.read() == b""
    response.close()
    assert connection.handle_request(request).read() == b"ok"


@pytest.mark.parametrize(
    "others",
    [
        pytest.param((b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b""), id="before it"),
        pytest.param((b"", b"HTTP/1.1 500 Error\r\nX: y\r\n\r\n"), id="after it"),
        pytest.param((b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), id="interim, after it"),
    ],
)
def test_a_response_has_only_its_own_headers(others: tuple[bytes, bytes]) -> None:
    parser = ResponseParser()

    parser.feed(others[0] + SIZED + others[1])

    assert (parser.status, parser.headers) == (200, [(b"Content-Length", b"2")])
