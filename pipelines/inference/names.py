"""What the engine is called, for doors that must not load it."""

from pathlib import Path

from models.settings import Settings

#: The bundled model: SmolLM2-135M-Instruct, Apache-2.0.
BUNDLED = "smollm2-135m-instruct"


def model_name(settings: Settings) -> str:
    """The name that the local engine answers to. Reads no file and imports no engine."""
    if settings.engine == "scripted":
        return "scripted"
    return Path(settings.model).stem if settings.model else BUNDLED
