"""Streams are counted by the metrics of web processes."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.platform.settings import Settings
from ops.top.stream_counts import StreamCounts, count_streams

METRICS = """# HELP sangha_open_streams Open event streams
# TYPE sangha_open_streams gauge
sangha_open_streams{process="web"} 12.0
sangha_open_streams_of_others 100.0
# TYPE sangha_slow_streams gauge
sangha_slow_streams 3.0
"""


class Metrics(http.server.BaseHTTPRequestHandler):
    """Serves METRICS at `/metrics` to who has the token, and metrics of a worker at `/worker`."""

    def do_GET(self) -> None:
        allowed = self.headers["authorization"] == "Bearer right-token-0123456789"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        text = METRICS if self.path == "/metrics" else "sangha_workers 1.0\n"
        self.wfile.write(text.encode() if allowed else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a web process's metrics."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def settings(home: Path, token: str = "right-token-0123456789") -> Settings:
    return Settings(data_dir=home, metrics_token=token, port=1)


def test_web_processes_at_urls_are_added_up(tmp_path: Path, port: int) -> None:
    urls = [f"http://127.0.0.1:{port}", f"127.0.0.1:{port}/metrics", f"http://127.0.0.1:{port}/worker"]

    assert count_streams(settings(tmp_path), urls) == StreamCounts(open=24, slow=6)


def test_address_of_the_settings_is_asked(tmp_path: Path, port: int) -> None:
    addressed = settings(tmp_path).model_copy(update={"metrics_address": f"0.0.0.0:{port}"})

    assert count_streams(addressed) == StreamCounts(open=12, slow=3)


def test_web_process_of_this_machine_is_asked_at_the_port_that_it_listens_on(tmp_path: Path, port: int) -> None:
    # Given the pid file of a web process: of this one, which listens on the port
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "web.pid").write_text(f"{os.getpid()}\n")

    counts = count_streams(settings(tmp_path))

    assert counts is not None
    assert counts.open >= 12


@pytest.mark.parametrize("pid", ["", "0x1", "999999999"])
def test_stale_pid_file_is_ignored(tmp_path: Path, pid: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "web.pid").write_text(pid)

    assert count_streams(settings(tmp_path)) is None


def test_streams_are_unknown_without_an_answer(tmp_path: Path, port: int) -> None:
    assert count_streams(settings(tmp_path, "wrong-token-0123456789"), [f"http://127.0.0.1:{port}"]) is None
    assert count_streams(settings(tmp_path), ["http://127.0.0.1:1"]) is None
    assert count_streams(settings(tmp_path), [f"http://127.0.0.1:{port}/worker"]) is None
