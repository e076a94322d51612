"""What the engine and the embedder are called, for doors that must not load it."""

from pathlib import Path

from models.platform.settings import Settings

#: The bundled model: SmolLM2-135M-Instruct, Apache-2.0.
BUNDLED = "smollm2-135m-instruct"

#: The bundled embedding model: all-MiniLM-L6-v2, Apache-2.0.
BUNDLED_EMBEDDER = "all-minilm-l6-v2"


def model_name(settings: Settings) -> str:
    """The name that the engine answers to. Reads no file and imports no engine."""
    if settings.engine == "scripted":
        return "scripted"
    if settings.engine == "openai":
        assert settings.fallback_model is not None
        return settings.fallback_model
    return Path(settings.model).stem if settings.model else BUNDLED


def embedder_name(settings: Settings) -> str:
    """The name that the embedder answers to. Reads no file."""
    return Path(settings.embedding_model).stem if settings.embedding_model else BUNDLED_EMBEDDER
