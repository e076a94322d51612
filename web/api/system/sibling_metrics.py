"""The metrics of all processes of `sangha up`, which the web process serves as one target."""

import http.client
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from models.platform.exposition import Exposition
from models.platform.merged_metrics import merge
from models.platform.monitoring import socket_path
from models.platform.settings import Settings

log = logging.getLogger(__name__)

#: Seconds after which a process that does not answer is left out.
TIMEOUT = 2.0


class InstallationMetrics:
    """Renders the metrics of a web process, and under `sangha up` with those of the others."""

    def __init__(self, settings: Settings, exposition: Exposition) -> None:
        self._settings = settings
        self._exposition = exposition

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text and its content type."""
        own, content_type = self._exposition.render(accept)
        if not self._is_supervised():
            return own, content_type
        texts = {"web": own.decode()}
        for name, path in self._siblings():
            with suppress(OSError, http.client.HTTPException):
                texts[name] = _read(path, accept)
        return merge(texts).encode(), content_type

    def _is_supervised(self) -> bool:
        return _pid(self._settings.home / "run" / "web.pid") == os.getpid()

    def _siblings(self) -> Iterator[tuple[str, Path]]:
        """Yield the names and sockets of the other processes."""
        yield "supervisor", socket_path(self._settings, os.getppid())
        for file in sorted((self._settings.home / "run").glob("*.pid")):
            pid = _pid(file)
            if pid is not None and pid != os.getpid():
                yield file.stem, socket_path(self._settings, pid)


def _pid(file: Path) -> int | None:
    """Return the pid in a file; None without one."""
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _read(path: Path, accept: str) -> str:
    """Read the metrics that are served at a socket. Raises OSError and HTTPException."""
    connection = _SocketConnection(path)
    try:
        connection.request("GET", "/metrics", headers={"accept": accept})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("sangha", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))
