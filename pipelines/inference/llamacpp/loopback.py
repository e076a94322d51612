"""Call llama.cpp's HTTP port on loopback, the only access to its tokenizer and template that takes no slot."""

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import orjson

from pipelines.inference.engine import EngineError


class LoopbackClient:
    """Calls the server that runs in this process. A call takes under 1 ms idle, 1.5 ms while slots generate."""

    def __init__(self, address: str, key: str) -> None:
        self.host = urlsplit(address).netloc
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the JSON object of the response, which may be an error. Raises EngineError when the request fails.

        Each call opens a connection: one kept open would occupy a server thread, and saves no more than 0.2 ms.
        """
        connection = HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, orjson.dumps(body) if body is not None else None, self.headers)
            response: dict[str, Any] = orjson.loads(connection.getresponse().read())
            return response
        except (OSError, HTTPException, orjson.JSONDecodeError) as error:
            raise EngineError(f"llama.cpp's port {self.host} does not respond: {error}") from error
        finally:
            connection.close()
