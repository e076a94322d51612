"""llama.cpp's HTTP port on loopback: the one way to its tokenizer and its template without taking a slot."""

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import orjson

from pipelines.inference.engine import EngineError


class LoopbackClient:
    """Asks the server that runs in this process. A call takes under 1 ms idle, 1.5 ms while slots generate."""

    def __init__(self, address: str, key: str) -> None:
        self.host = urlsplit(address).netloc
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The answer's JSON object, which may be an error's. Raises EngineError when the port doesn't answer.

        A connection a call: one kept open holds a server thread, and is no faster by more than 0.2 ms.
        """
        connection = HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, orjson.dumps(body) if body is not None else None, self.headers)
            answer: dict[str, Any] = orjson.loads(connection.getresponse().read())
            return answer
        except (OSError, HTTPException, orjson.JSONDecodeError) as error:
            raise EngineError(f"llama.cpp doesn't answer on {self.host}: {error}") from error
        finally:
            connection.close()
