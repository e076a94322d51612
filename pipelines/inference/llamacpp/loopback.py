"""Call llama.cpp's HTTP server at its socket, the only access to its tokenizer and template that takes no slot."""

import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any

import orjson

from pipelines.inference.engine import EngineError


class SocketConnection(HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class LoopbackClient:
    """Calls the server that runs in this process. A call takes under 1 ms idle, 1.5 ms while slots generate."""

    def __init__(self, address: str, key: str) -> None:
        self.path = address.removeprefix("unix://")
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the JSON object of the response, which may be an error. Raises EngineError when the request fails.

        Each call opens a connection: one kept open would occupy a server thread, and saves no more than 0.2 ms.
        """
        connection = SocketConnection(self.path, timeout=30)
        try:
            connection.request(method, path, orjson.dumps(body) if body is not None else None, self.headers)
            response: dict[str, Any] = orjson.loads(connection.getresponse().read())
            return response
        except (OSError, HTTPException, orjson.JSONDecodeError) as error:
            raise EngineError(f"llama.cpp's socket {self.path} does not respond: {error}") from error
        finally:
            connection.close()
