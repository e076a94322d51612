"""What the processes of peers have in common."""

import http.client
import re
import signal
from pathlib import Path

HOST = "127.0.0.1"


class PeerProcess:
    """A process of a peer, as a child of the stack."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None
    name: str
    port: int

    def prepare(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def answers(self, path: str) -> bool:
        """Return whether GET on a path is answered with 200."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=3)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
