"""Given a server behind a link, when the link fails in some way, then its client sees that failure."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.proxy import Link, Links
from bench.harness.waiting import wait_until


class Echo:
    """A server on a Unix socket that sends back and records what it receives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[bytes] = []
        self.ended = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=[connection]))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received.append(data)
                    connection.sendall(data)
            except OSError:
                pass
        self.ended += 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Echo]:
    echo = Echo(tmp_path / "echo.sock")
    yield echo
    echo.close()


@pytest.fixture
def link(server: Echo) -> Iterator[Link]:
    with Links() as links:
        yield links.open("a link", server.path)


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    with connected(link) as connection:
        yield connection


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=10)


def exchange(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(65536)


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(65536) == b""
    except ConnectionError:
        return True


def refuses(link: Link) -> bool:
    try:
        with connected(link) as client:
            return is_cut(client)
    except ConnectionError:  # the reset arrived before the connection was complete
        return True


def test_a_normal_link_forwards_all_data(client: socket.socket):
    whole = bytes(range(256)) * 4096

    client.sendall(whole)

    received = b""
    while len(received) < len(whole):
        received += client.recv(65536)
    assert received == whole


def test_a_closed_connection_is_closed_at_the_server(client: socket.socket, server: Echo):
    assert exchange(client, b"hello") == b"hello"

    client.close()

    wait_until(lambda: server.ended == 1)


def test_a_slow_link_delays_data_each_way(client: socket.socket, link: Link):
    link.delay(0.05)

    began = time.monotonic()
    assert exchange(client, b"hello") == b"hello"

    assert time.monotonic() - began > 0.1


def test_a_stalled_link_holds_back_requests_until_it_is_healed(client: socket.socket, link: Link, server: Echo):
    assert exchange(client, b"hello") == b"hello"
    link.stall()
    client.sendall(b"again")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert server.received == [b"hello"]

    link.heal()

    client.settimeout(10)
    assert client.recv(5) == b"again"


def test_a_link_that_holds_back_answers_forwards_requests(client: socket.socket, link: Link, server: Echo):
    link.stall(up=False)

    client.sendall(b"hello")
    wait_until(lambda: server.received == [b"hello"])
    link.cut()

    assert is_cut(client)


def test_a_cut_link_accepts_new_connections(client: socket.socket, link: Link):
    assert exchange(client, b"hello") == b"hello"

    link.cut()

    assert is_cut(client)
    with connected(link) as another:
        assert exchange(another, b"hello") == b"hello"


def test_a_refusing_link_accepts_no_connection_until_it_is_healed(client: socket.socket, link: Link):
    assert exchange(client, b"hello") == b"hello"

    link.refuse()

    assert is_cut(client)
    assert refuses(link)
    link.heal()
    with connected(link) as another:
        assert exchange(another, b"hello") == b"hello"


def test_a_tearing_link_forwards_half_an_answer(client: socket.socket, link: Link):
    link.tear()

    assert exchange(client, b"0123456789") == b"01234"
    assert is_cut(client)


def test_the_link_of_a_stopped_server_refuses_connections(link: Link, server: Echo):
    server.path.rename(server.path.with_name("elsewhere"))

    assert refuses(link)
    server.path.with_name("elsewhere").rename(server.path)
    with connected(link) as client:
        assert exchange(client, b"hello") == b"hello"
