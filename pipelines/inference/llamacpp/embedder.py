"""Makes vectors of texts, with a GGUF embedding model in the process. Bundled: all-MiniLM-L6-v2, 384 dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.platform.errors import ConfigurationError, SanghaError
from models.platform.settings import Settings, variable_name
from pipelines.inference.engine import EngineError
from pipelines.inference.llamacpp.gguf_files import embedder_file
from pipelines.inference.llamacpp.server import server_parameters, start_server
from pipelines.inference.machine import usable_cores
from pipelines.inference.registry import embedder_name

#: Tokens of a text that count; the rest is left out. The bundled model knows 512 positions.
MAX_TOKENS = 512

#: Characters that hold about as many tokens in English: the first cut, before the model counts.
MAX_CHARACTERS = 4 * MAX_TOKENS

#: Texts embedded side by side. Eight short ones fill a batch; more gain nothing on 2 cores.
BATCH_TEXTS = 8


class TextTooLong(SanghaError):
    """The text at this place has more tokens than the model takes, which is `longest`."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the text at place {place} has more than {MAX_TOKENS} tokens")
        self.position = place
        self.max_tokens = MAX_TOKENS


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector a text, in order, and the tokens of all texts as the model counts them."""

    vectors: list[list[float]]
    tokens: int


def load_embedder(settings: Settings) -> "Embedder":
    """Load the embedding model. Raises ConfigurationError with one line when it isn't there or can't be read."""
    # A small model: on 2 cores one thread embeds a query in 2.8 ms, two take 4.4 ms, and the other core stays free.
    params = server_parameters(embedder_file(settings), threads=max(1, usable_cores() // 2))
    params.embedding = True
    params.n_parallel = BATCH_TEXTS
    params.n_ctx = BATCH_TEXTS * MAX_TOKENS
    params.n_batch = params.n_ubatch = MAX_TOKENS  # a text must fit one batch
    try:
        return Embedder(start_server(params, "embedding_model"), embedder_name(settings))
    except EngineError as error:
        raise ConfigurationError(
            f"{variable_name('embedding_model')}: {params.model.path} makes no embeddings: {error}"
        ) from None


class Embedder:
    """Texts to unit vectors. May be used from many threads at once.

    dimensions  the length of a vector
    """

    def __init__(self, server: Any, name: str) -> None:
        self.name = name
        self._server = server
        self.dimensions = len(self.embed(["a text"])[0])

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order, of length 1: a dot product is a cosine. Of a long text the beginning counts.

        Raises EngineError.
        """
        if not texts:
            return []
        embedded = self._try([text[:MAX_CHARACTERS] for text in texts])
        return embedded.vectors if embedded else self._embed_halves(texts)

    def embed_whole(self, texts: Sequence[str]) -> Embeddings:
        """The same for texts of which all must count. Raises TooLong for the first that has too many tokens, and
        EngineError."""
        if not texts:
            return Embeddings([], 0)
        if (embedded := self._try(texts)) is None:
            raise TextTooLong(self._first_too_long(texts))
        return embedded

    def close(self) -> None:
        """Give the memory back. No call may be under way."""
        self._server = None

    def _try(self, texts: Sequence[str]) -> Embeddings | None:
        """All of them; None when some text has more tokens than a batch."""
        answer = self._ask(list(texts))
        if "data" in answer:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            return Embeddings([row["embedding"] for row in rows], answer["usage"]["prompt_tokens"])
        message = str(answer.get("error", answer))
        if "too large" not in message:
            raise EngineError(message)
        return None

    def _first_too_long(self, texts: Sequence[str]) -> int:
        """Where it is, found by halves: the model doesn't say."""
        if len(texts) == 1:
            return 0
        middle = len(texts) // 2
        if self._try(texts[:middle]) is None:
            return self._first_too_long(texts[:middle])
        return middle + self._first_too_long(texts[middle:])

    def _ask(self, texts: list[str]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = orjson.loads(self._server.handle_embeddings(orjson.dumps({"input": texts})))
        except (RuntimeError, ValueError) as error:
            raise EngineError(str(error)) from error
        return answer

    def _embed_halves(self, texts: Sequence[str]) -> list[list[float]]:
        """Some text has more tokens than a batch: find it by halves, then halve it. Only dense scripts come here."""
        if len(texts) > 1:
            middle = len(texts) // 2
            return self.embed(texts[:middle]) + self.embed(texts[middle:])
        return self.embed([texts[0][: min(len(texts[0]), MAX_CHARACTERS) // 2]])
