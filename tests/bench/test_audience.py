"""Given a door that cuts its streams, when clients follow and return, then each event is noted once, with its time."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.audience import audience
from bench.client import Broken
from bench.scenarios.restart import caught_up
from models.journal.events import event
from web.streams.sse import frame


class Door(BaseHTTPRequestHandler):
    """Tells two events, and whoever comes back with the second one's id a third, which is the last; knows one path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """One stream."""
        self.send_response(200 if self.path == "/stream" else 404)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        back = self.headers.get("Last-Event-ID") == "1"
        for sequence in (2,) if back else (0, 1):
            type_ = "response.completed" if back else "response.output_text.delta"
            told = event(sequence, type_, {"delta": f"{sequence}"})
            self._chunk(frame(sequence, told.data))
            self._chunk(b": ping\n")
        self._chunk(b"")

    def log_message(self, *_):
        """Nobody reads it."""

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.fixture
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address
        server.shutdown()


def test_clients_return_with_their_last_id(address):
    with audience() as clients:
        clients.come([address], [("/stream", "token")] * 3, returning=True)
        assert len(clients.came()) == 3
        clients.end()
        heard = clients.heard()

    assert [[event[1:] for event in events] for events in heard] == [[(0, "0", 0), (1, "1", 0), (2, "2", 1)]] * 3


def test_a_stream_that_breaks_off_is_told_of(address):
    with audience() as clients:
        clients.come([address], [("/stream", "token")])
        clients.came()
        with pytest.raises(Broken, match="1 broke off"):
            clients.hear(2)


def test_a_refusal_is_told_word_by_word(address):
    with audience() as clients:
        clients.come([address], [("/elsewhere", "token")])
        with pytest.raises(Broken, match="404 Not Found"):
            clients.came()


def test_caught_up_is_who_lacks_nothing_that_others_have():
    stayer = [(1.0, 7, "", 0), (2.0, 8, "", 0), (3.0, 9, "", 0), (4.0, 10, "", 0)]

    assert caught_up([(2.5, 7, "", 1), (2.6, 8, "", 1), (3.1, 9, "", 1)], stayer) == 2.6
    assert caught_up([(4.5, 9, "", 1), (4.6, 10, "", 1)], stayer) == 4.6
