"""Count the open and the slow event streams, which only the metrics of web processes know."""

import http.client
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from models.platform.settings import Settings
from ops.web_connection import connectable_host

#: Seconds that a process has to answer.
TIMEOUT = 1.0

OPEN, SLOW = "sangha_open_streams", "sangha_slow_streams"


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """The streams of the processes that could be asked; `slow` are those whose clients read less than is written."""

    open: int
    slow: int


def count_streams(settings: Settings, urls: Sequence[str] = ()) -> StreamCounts | None:
    """Return the sum over the web processes at some URLs of metrics; None: no web process could be asked.

    Without URLs, ask the web process of `sangha up` on this machine, at the ports that it listens on, or where there is
    none the address of the settings.
    """
    texts = [text for source in _sources(settings, urls) if (text := source.read()) is not None]
    counted = [values for text in texts if (values := list(_values(text, OPEN)))]
    if not counted:
        return None
    slow = sum(value for text in texts for value in _values(text, SLOW))
    return StreamCounts(int(sum(value for values in counted for value in values)), int(slow))


@dataclass(frozen=True, slots=True)
class Source:
    """The metrics of one process."""

    host: str
    port: int | None
    path: str = "/metrics"
    token: str | None = None
    tls: bool = False

    def read(self) -> str | None:
        """Return the metrics; None if the process does not answer with them."""
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=TIMEOUT)
        try:
            headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
            connection.request("GET", self.path, headers=headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
            return text if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def _sources(settings: Settings, urls: Sequence[str]) -> list[Source]:
    token = settings.metrics_token
    if urls:
        return [_source_of(url, token) for url in urls]
    if ports := _listening_ports(settings.home / "run" / "web.pid"):
        return [Source(host, port, token=token) for host, port in ports]
    address = settings.metrics_address or f"{settings.host}:{settings.port}"
    return [_source_of(address, token)]


def _listening_ports(pid_file: Path) -> Sequence[tuple[str, int]]:
    """Return the addresses that the process of a pid file listens on; none where it does not run."""
    try:
        connections = psutil.Process(int(pid_file.read_text())).net_connections("tcp")
    except (OSError, ValueError, psutil.Error):
        return ()
    listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    return sorted({(connectable_host(address.ip), address.port) for address in listening})


def _source_of(url: str, token: str | None) -> Source:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    path = parts.path if parts.path not in ("", "/") else "/metrics"
    return Source(connectable_host(parts.hostname or ""), parts.port, path, token, parts.scheme == "https")


def _values(text: str, name: str) -> Iterable[float]:
    """Return the values of a metric, with or without labels."""
    for line in text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            yield float(line.rpartition(" ")[2])
