"""Checks of the engine and the embedder."""

from models.platform.settings import Settings
from ops.doctor.finding import Finding
from pipelines.inference.registry import engine_spec


def engine(settings: Settings) -> Finding:
    """Check that the engine's model is there: a GGUF file, or an endpoint that generates a token."""
    status = engine_spec(settings).check(settings)
    return Finding("warn" if status.remedy else "ok", "engine", status.detail, status.remedy)


def embedding_model(settings: Settings) -> Finding:
    """Check that the embedding model is a GGUF file."""
    from pipelines.inference.llamacpp.gguf_files import embedder_file, name_and_size

    return Finding("ok", "embedding model", name_and_size(embedder_file(settings)))
