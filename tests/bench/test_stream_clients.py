"""Given a server that cuts its streams, when clients reconnect, then each event is recorded once, with its time."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.harness.sse import CheckFailed
from bench.stream_clients import stream_clients
from models.journal.events import event
from web.streams.sse import frame


class CuttingHandler(BaseHTTPRequestHandler):
    """Sends two events on /stream, and to a client that resumes after the second one a third, which is the last."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200 if self.path == "/stream" else 404)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        resumed = self.headers.get("Last-Event-ID") == "1"
        for sequence in (2,) if resumed else (0, 1):
            type_ = "response.completed" if resumed else "response.output_text.delta"
            self._write_chunk(frame(sequence, event(sequence, type_, {"delta": f"{sequence}"}).data))
            self._write_chunk(b": ping\n")
        self._write_chunk(b"")

    def log_message(self, *_):
        """Log nothing."""

    def _write_chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.fixture
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), CuttingHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address
        server.shutdown()


def test_clients_resume_after_their_last_id(address):
    with stream_clients() as clients:
        clients.connect([address], [("/stream", "token")] * 3, reconnect=True)
        assert len(clients.connected()) == 3
        clients.wait_ended()
        received = clients.events()

    assert [[event[1:] for event in events] for events in received] == [[(0, "0", 0), (1, "1", 0), (2, "2", 1)]] * 3


def test_a_stream_that_is_closed_early_is_reported(address):
    with stream_clients() as clients:
        clients.connect([address], [("/stream", "token")])
        clients.connected()
        with pytest.raises(CheckFailed, match="1 were closed early"):
            clients.received(2)


def test_the_response_that_refuses_a_stream_is_reported(address):
    with stream_clients() as clients:
        clients.connect([address], [("/elsewhere", "token")])
        with pytest.raises(CheckFailed, match="404 Not Found"):
            clients.connected()
