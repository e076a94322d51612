"""Checks of the engine and the embedder."""

from pathlib import Path

from models.platform.settings import Settings
from ops.doctor.finding import Finding


def engine(settings: Settings) -> Finding:
    """Check that the engine's model is a GGUF file, or that its endpoint generates a token."""
    if settings.engine == "scripted":
        return Finding("warn", "engine", "scripted: every turn gets the same answer", "unset SANGHA_ENGINE")
    if settings.engine == "openai":
        from pipelines.inference.openai.engine import greet

        return Finding("ok", "engine", greet(settings))
    from pipelines.inference.llamacpp.gguf_files import engine_file

    return Finding("ok", "engine", f"{settings.engine} with {name_and_size(engine_file(settings))}")


def embedding_model(settings: Settings) -> Finding:
    """Check that the embedding model is a GGUF file."""
    from pipelines.inference.llamacpp.gguf_files import embedder_file

    return Finding("ok", "embedding model", name_and_size(embedder_file(settings)))


def name_and_size(file: Path) -> str:
    """`model.gguf, 105 MB`."""
    return f"{file.name}, {file.stat().st_size // 1_000_000} MB"
