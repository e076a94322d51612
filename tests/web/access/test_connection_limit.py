"""The limit of open connections per client address, on real sockets and by address."""

import contextlib
import logging
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from starlette.responses import Response

from bench.harness.waiting import wait_until
from web.access.connection_limit import SHARE_OF_FILES, ConnectionLimit, share_of_files
from web.access.rights import Rights
from web.api.routing import Route
from web.app import build

ROUTES = (Route("GET", "/small", lambda request: Response("small"), Rights.PUBLIC),)
REQUEST = b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.fixture
def connect(offline_settings, serve):
    """`connect(settings=…)(source)` → a socket from an address of the loopback network to a server of its own."""
    with ExitStack() as stack:

        def start(**changes):
            url = urlsplit(str(serve(build(offline_settings.model_copy(update=changes), ROUTES)).base_url))
            return lambda source: stack.enter_context(
                socket.create_connection((url.hostname, url.port), timeout=20, source_address=(source, 0))
            )

        yield start


def answers(connection):
    """Send a request; returns whether a response came before the end of the connection."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(REQUEST)
        return connection.recv(65536).startswith(b"HTTP/1.1 200")
    return False


def test_idle_connections_of_one_address_do_not_keep_another_from_connecting(connect):
    # Given an address that holds as many idle connections as it may
    open_from = connect(connections_per_address=3)
    idle = [open_from("127.0.0.2") for _ in range(3)]
    # When it opens one more, then that one is reset, and another address is served
    assert not answers(open_from("127.0.0.2"))
    assert answers(open_from("127.0.0.3"))
    # And those that it had before still work
    assert all(answers(connection) for connection in idle)


def test_a_closed_connection_makes_room_for_another(connect):
    open_from = connect(connections_per_address=1)
    first = open_from("127.0.0.2")
    assert not answers(open_from("127.0.0.2"))

    first.close()

    wait_until(lambda: answers(open_from("127.0.0.2")))


def test_a_refused_connection_does_not_count(connect):
    open_from = connect(connections_per_address=1)
    first = open_from("127.0.0.2")
    assert not any(answers(open_from("127.0.0.2")) for _ in range(3))

    assert answers(first)

    wait_until(lambda: answers(open_from("127.0.0.2")))


def test_a_trusted_proxy_is_not_limited(connect):
    open_from = connect(connections_per_address=1, trusted_proxies="192.0.2.0/24, 127.0.0.2")
    idle = [open_from("127.0.0.2") for _ in range(3)]

    assert all(answers(connection) for connection in idle)


@pytest.mark.parametrize(
    ("first", "second", "admitted"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", False),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.2", True),
        ("fe80::1%eth0", "fe80::1%eth0", False),
    ],
)
def test_addresses_of_one_ipv6_network_share_the_limit(first, second, admitted):
    limit = ConnectionLimit(1)
    assert limit.open(first)

    assert limit.open(second) is admitted


def test_a_proxy_is_recognised_by_its_ipv4_address_in_ipv6():
    limit = ConnectionLimit(1, "192.0.2.0/24,2001:db8::/32")

    assert all(limit.open("::ffff:192.0.2.1") for _ in range(2))
    assert all(limit.open("2001:db8::1") for _ in range(2))


def test_refused_connections_are_logged_once_a_minute(caplog):
    limit = ConnectionLimit(1)

    with caplog.at_level(logging.WARNING):
        assert [limit.open("192.0.2.1") for _ in range(4)] == [True, False, False, False]

    assert [record.getMessage()[:35] for record in caplog.records] == ["Refusing connections of 192.0.2.1, "]


def test_an_address_may_hold_a_quarter_of_the_files_by_default(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (20_000, 20_000))

    assert share_of_files() == 20_000 // SHARE_OF_FILES == 5000
