"""Embed texts with a GGUF embedding model in the process. Bundled: all-MiniLM-L6-v2, 384 dimensions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.platform.errors import ConfigurationError, SanghaError
from models.platform.metrics import EMBEDDING_DURATION, observe
from models.platform.settings import Settings, variable_name
from pipelines.inference.engine import EngineError
from pipelines.inference.llamacpp.gguf_files import embedder_file
from pipelines.inference.llamacpp.server import server_parameters, start_server
from pipelines.inference.machine import usable_cores
from pipelines.inference.registry import embedder_name

#: Tokens of a text that are embedded; the rest is dropped. The bundled model has 512 positions.
MAX_TOKENS = 512

#: Characters of about as many tokens in English: a first limit, before the model counts.
MAX_CHARACTERS = 4 * MAX_TOKENS

#: Texts per batch. Eight short ones fill it; more gain nothing on 2 cores.
BATCH_TEXTS = 8


class TextTooLong(SanghaError):
    """The text at `position` has more than `max_tokens` tokens."""

    def __init__(self, position: int) -> None:
        super().__init__(f"The text at position {position} has more than {MAX_TOKENS} tokens")
        self.position = position
        self.max_tokens = MAX_TOKENS


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, in order, and the number of tokens of all texts."""

    vectors: list[list[float]]
    tokens: int


def load_embedder(settings: Settings) -> "Embedder":
    """Load the embedding model. Raises ConfigurationError with one line when it is missing or can't be read."""
    # A small model: on 2 cores one thread embeds a query in 2.8 ms, two take 4.4 ms and use both cores.
    params = server_parameters(embedder_file(settings), threads=max(1, usable_cores() // 2))
    params.embedding = True
    params.n_parallel = BATCH_TEXTS
    params.n_ctx = BATCH_TEXTS * MAX_TOKENS
    params.n_batch = params.n_ubatch = MAX_TOKENS  # a text must fit into one batch
    try:
        return Embedder(start_server(params, "embedding_model"), embedder_name(settings))
    except EngineError as error:
        raise ConfigurationError(
            f"{variable_name('embedding_model')}: {params.model.path} is not an embedding model: {error}"
        ) from None


class Embedder:
    """Embeds texts. May be used from many threads at once.

    dimensions  the length of a vector
    """

    def __init__(self, server: Any, name: str) -> None:
        self.name = name
        self._server = server
        self.dimensions = len(self.embed(["a text"])[0])

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one unit vector per text, in order: a dot product is a cosine. A long text is cut.

        Raises EngineError.
        """
        if not texts:
            return []
        embeddings = self._embed_together([text[:MAX_CHARACTERS] for text in texts])
        return embeddings.vectors if embeddings else self._embed_halves(texts)

    def embed_untruncated(self, texts: Sequence[str]) -> Embeddings:
        """Embed whole texts. Raises TextTooLong for the first that has too many tokens, and EngineError."""
        if not texts:
            return Embeddings([], 0)
        if (embeddings := self._embed_together(texts)) is None:
            raise TextTooLong(self._first_too_long(texts))
        return embeddings

    def close(self) -> None:
        """Free the memory. No call may be in progress."""
        self._server = None

    def _embed_together(self, texts: Sequence[str]) -> Embeddings | None:
        """Embed all texts in one request. Returns None when one has more tokens than a batch."""
        response = self._request(list(texts))
        if "data" in response:
            rows = sorted(response["data"], key=lambda row: int(row["index"]))
            return Embeddings([row["embedding"] for row in rows], response["usage"]["prompt_tokens"])
        message = str(response.get("error", response))
        if "too large" not in message:
            raise EngineError(message)
        return None

    def _first_too_long(self, texts: Sequence[str]) -> int:
        """Return the position of the first text that is too long, by bisection: the model does not report it."""
        if len(texts) == 1:
            return 0
        middle = len(texts) // 2
        if self._embed_together(texts[:middle]) is None:
            return self._first_too_long(texts[:middle])
        return middle + self._first_too_long(texts[middle:])

    def _request(self, texts: list[str]) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            response: dict[str, Any] = orjson.loads(self._server.handle_embeddings(orjson.dumps({"input": texts})))
        except (RuntimeError, ValueError) as error:
            raise EngineError(str(error)) from error
        observe(EMBEDDING_DURATION, time.perf_counter() - began)
        return response

    def _embed_halves(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed the texts in halves, then a text that is too long by its first half. Only dense scripts get here."""
        if len(texts) > 1:
            middle = len(texts) // 2
            return self.embed(texts[:middle]) + self.embed(texts[middle:])
        return self.embed([texts[0][: min(len(texts[0]), MAX_CHARACTERS) // 2]])
