"""The bundled models, loaded once per test session."""

from collections.abc import Iterator

import pytest

from models.platform.settings import Settings
from pipelines.inference.llamacpp.embedder import Embedder, load_embedder
from pipelines.inference.llamacpp.engine import LlamaCppEngine, load_llamacpp
from pipelines.inference.llamacpp.minilm import convert


@pytest.fixture(scope="session")
def llamacpp_engine() -> Iterator[LlamaCppEngine]:
    """SmolLM2 with two slots of 512 tokens."""
    llamacpp = load_llamacpp(Settings(slots=2, context=512))
    yield llamacpp
    llamacpp.close()


@pytest.fixture(scope="session")
def engine(llamacpp_engine: LlamaCppEngine) -> LlamaCppEngine:
    """The same, unless a folder's tests have another engine."""
    return llamacpp_engine


@pytest.fixture(scope="session")
def embedder() -> Iterator[Embedder]:
    """MiniLM, converted to GGUF unless it is already."""
    convert()
    minilm = load_embedder(Settings())
    yield minilm
    minilm.close()
