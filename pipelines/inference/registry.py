"""From the settings to an engine. Each engine's module is imported only when it is the one asked for."""

from models.platform.settings import Settings
from pipelines.inference.engine import Engine


def load_engine(settings: Settings) -> Engine:
    """Load the engine that the settings name. It takes memory and threads: call it once a process, after forking.

    Raises ConfigurationError with one line when the model isn't there or can't be read.
    """
    if settings.engine == "scripted":
        from pipelines.inference.scripted.engine import Scripted

        return Scripted(settings)
    if settings.engine == "openai":
        from pipelines.inference.openai.engine import Hosted

        return Hosted(settings)
    from pipelines.inference.llamacpp.engine import load

    return load(settings)
