"""Given clients that are slow, endless or deaf, when they connect, then they are let go in a bounded time."""

import contextlib
import socket
import threading

import pytest
from starlette.responses import Response

from web.access.rights import Rights
from web.api.routing import Route
from web.http import protocol
from web.streams.sse import EventStream

ROWS = (
    Route("GET", "/small", lambda request: Response("small"), Rights.PUBLIC),
    Route("POST", "/member", lambda request: Response("member"), Rights.READ),
)


@pytest.fixture
def connect(make_client):
    opened = []

    def open_socket(*rows):
        client = make_client(*(rows or ROWS))
        client.headers.clear()
        opened.append(socket.create_connection((client.base_url.host, client.base_url.port), timeout=20))
        return opened[-1]

    yield open_socket
    for connection in opened:
        connection.close()


def ends(connection):
    """Read until the server closes; the socket's time limit bounds it."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("first", [b"", b"GET /small HT", b"GET /small HTTP/1.1\r\nhost: x\r\nx-a: b\r\n"])
def test_a_head_that_does_not_end_is_dropped(connect, monkeypatch, first):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    connection = connect()

    connection.sendall(first)

    assert ends(connection) == b""


def test_an_endless_head_is_a_431(connect):
    connection = connect()

    connection.sendall(b"GET /small HTTP/1.1\r\nhost: x\r\nx-endless: ")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(200):
            connection.sendall(b"y" * 4096)

    # Bytes still on their way when the server closes reset the connection, and may take the answer with them.
    assert ends(connection)[:12] in (b"", b"HTTP/1.1 431")


def test_a_large_body_is_no_large_head(connect):
    connection = connect()
    request = b"POST /member HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000

    connection.sendall(request + b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")

    received = ends(connection)
    assert received.startswith(b"HTTP/1.1 401")
    assert received.endswith(b"small")


CHUNKED = b"POST /headers HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"


def told(request):
    return Response(",".join(request.headers))


def test_a_trailer_is_no_header(connect):
    connection = connect(Route("POST", "/headers", told, Rights.PUBLIC))

    connection.sendall(CHUNKED + b"1\r\nx\r\n0\r\nauthorization: Bearer x\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")

    assert ends(connection).endswith(b"\r\n\r\nhost,connection,transfer-encoding")


@pytest.mark.parametrize("begin", [b"0\r\nx-endless: ", b"1;endless="])
def test_what_is_neither_head_nor_body_is_bounded(connect, begin):
    connection = connect(Route("POST", "/headers", told, Rights.PUBLIC))

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(CHUNKED + begin + b"y" * 40_000_000)


def test_a_body_in_the_smallest_chunks_is_read(connect):
    connection = connect(Route("POST", "/headers", told, Rights.PUBLIC))

    connection.sendall(CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")

    assert ends(connection).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_end_after_its_answer_is_dropped(connect, monkeypatch):
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.05)
    connection = connect()

    connection.sendall(b"POST /member HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nx")

    assert ends(connection).startswith(b"HTTP/1.1 401")


def test_a_client_that_does_not_read_is_dropped(make_client, monkeypatch):
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
def test_a_request_names_one_host(connect, head, status):
    connection = connect()

    connection.sendall(head + b"connection: close\r\n\r\n")

    assert ends(connection).split()[1] == b"%d" % status
