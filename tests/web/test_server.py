"""Start-up and shutdown of the web process: bind errors, signals, garbage collector settings."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from web.server import bind

START = "from models.platform.settings import load_settings; from web.server import serve; serve(load_settings())"


def test_an_occupied_port_is_reported_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]

        with pytest.raises(ConfigurationError) as error:
            bind(Settings(port=port))

    assert f"SANGHA_PORT is {port}" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_host_is_reported_by_its_setting():
    with pytest.raises(ConfigurationError, match="SANGHA_HOST"):
        bind(Settings(host="no.such.host.invalid"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_shuts_the_server_down_cleanly(tmp_path, number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"SANGHA_PORT": str(port), "SANGHA_DATA_DIR": str(tmp_path)}

    with subprocess.Popen([sys.executable, "-c", START], env=environment, stderr=subprocess.PIPE) as process:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
                answer = client.get(f"http://127.0.0.1:{port}/healthz")
                assert answer.json() == {"status": "ok"}
                assert "server" not in answer.headers
                process.send_signal(number)
                assert process.wait(20) == 0
        finally:
            process.kill()
