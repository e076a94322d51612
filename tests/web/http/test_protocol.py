"""Limits of connections: slow or endless heads, trailers, bodies after the response, clients that do not read."""

import contextlib
import socket
import threading

import pytest
from starlette.responses import Response

from web.access.rights import Rights
from web.api.routing import Route
from web.http import protocol
from web.streams.sse import EventStream

ROUTES = (
    Route("GET", "/small", lambda request: Response("small"), Rights.PUBLIC),
    Route("POST", "/member", lambda request: Response("member"), Rights.READ),
)


@pytest.fixture
def connect(make_client):
    opened = []

    def open_socket(*routes):
        client = make_client(*(routes or ROUTES))
        client.headers.clear()
        opened.append(socket.create_connection((client.base_url.host, client.base_url.port), timeout=20))
        return opened[-1]

    yield open_socket
    for connection in opened:
        connection.close()


def read_to_end(connection):
    """Read until the server closes the connection, or fail after the socket's timeout."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("start", [b"", b"GET /small HT", b"GET /small HTTP/1.1\r\nhost: x\r\nx-a: b\r\n"])
def test_a_connection_with_an_unfinished_head_is_closed(connect, monkeypatch, start):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    connection = connect()

    connection.sendall(start)

    assert read_to_end(connection) == b""


def test_an_endless_head_is_rejected_with_431(connect):
    connection = connect()

    connection.sendall(b"GET /small HTTP/1.1\r\nhost: x\r\nx-endless: ")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(200):
            connection.sendall(b"y" * 4096)

    # Bytes in flight when the server closes reset the connection, and the response may be lost.
    assert read_to_end(connection)[:12] in (b"", b"HTTP/1.1 431")


def test_a_large_body_does_not_count_as_head(connect):
    connection = connect()
    request = b"POST /member HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000

    connection.sendall(request + b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 401")
    assert received.endswith(b"small")


CHUNKED = b"POST /headers HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"


def list_headers(request):
    return Response(",".join(request.headers))


def test_a_trailer_is_not_treated_as_a_header(connect):
    connection = connect(Route("POST", "/headers", list_headers, Rights.PUBLIC))

    connection.sendall(CHUNKED + b"1\r\nx\r\n0\r\nauthorization: Bearer x\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")

    assert read_to_end(connection).endswith(b"\r\n\r\nhost,connection,transfer-encoding")


@pytest.mark.parametrize("start", [b"0\r\nx-endless: ", b"1;endless="])
def test_trailers_and_chunk_extensions_are_limited(connect, start):
    connection = connect(Route("POST", "/headers", list_headers, Rights.PUBLIC))

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(CHUNKED + start + b"y" * 40_000_000)


def test_a_body_in_one_byte_chunks_is_accepted(connect):
    connection = connect(Route("POST", "/headers", list_headers, Rights.PUBLIC))

    connection.sendall(CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")

    assert read_to_end(connection).startswith(b"HTTP/1.1 200")


def send_two_frames(request):
    async def source():
        yield b"data: one\n\n"
        yield b"data: two\n\n"

    return EventStream(source(), request.platform.streams)


def test_a_client_of_http_1_0_receives_the_body_without_chunks_up_to_the_end_of_the_connection(connect):
    connection = connect(Route("GET", "/frames", send_two_frames, Rights.PUBLIC))

    connection.sendall(b"GET /frames HTTP/1.0\r\nhost: x\r\n\r\n")

    head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b"data: one\n\ndata: two\n\n"


def test_a_connection_with_an_unfinished_body_is_closed_after_the_response(connect, monkeypatch):
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.05)
    connection = connect()

    connection.sendall(b"POST /member HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx")

    assert read_to_end(connection).startswith(b"HTTP/1.1 401")


def test_a_client_that_does_not_read_is_disconnected(make_client, monkeypatch):
    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.1)
    closed = threading.Event()

    async def flood():
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    client = make_client(
        Route("GET", "/flood", lambda request: EventStream(flood(), request.platform.streams), Rights.PUBLIC)
    )

    with client.stream("GET", "/flood"):
        assert closed.wait(20)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /small HTTP/1.1\r\n", 400),
        (b"GET /small HTTP/1.1\r\nhost: x\r\nhost: y\r\n", 400),
        (b"GET /small HTTP/1.0\r\nhost: x\r\nhost: x\r\n", 400),
        (b"GET /small HTTP/1.0\r\n", 200),
        (b"GET /small HTTP/1.1\r\nhost: x\r\n", 200),
    ],
)
def test_a_request_must_have_one_host_header(connect, head, status):
    connection = connect()

    connection.sendall(head + b"connection: close\r\n\r\n")

    assert read_to_end(connection).split()[1] == b"%d" % status
