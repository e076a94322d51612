"""Check that ctransformers can load a file, before it tries: it would abort the process, or say only that it failed."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from pipelines.inference.llamacpp.gguf_files import check_gguf
from pipelines.inference.llamacpp.gguf_metadata import GgufContents, read_contents
from pipelines.inference.llamacpp.gguf_weights import missing_bytes

#: The types of tensors of September 2023 by GGML's number: floats, the first quantisations, and the K-quants.
KINDS = frozenset({0, 1, 2, 3, 6, 7, 8, 9, *range(10, 16)})

LOADABLE = "ctransformers loads Llama models with a SentencePiece vocabulary; use SANGHA_ENGINE=llamacpp"


def check_file(settings: Settings) -> Path:
    """Return the model's file. Raises ConfigurationError with one line where ctransformers cannot load it."""
    file = check_gguf("model", settings.model or "")
    try:
        contents = read_contents(file)
        problem = next(_problems(contents), None)
        missing = 0 if problem else missing_bytes(contents, file.stat().st_size)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"SANGHA_MODEL is {str(file)!r}: the file can't be read ({error})") from None
    if problem:
        raise ConfigurationError(f"SANGHA_MODEL is {str(file)!r}: {problem}. {LOADABLE}")
    if missing:
        raise ConfigurationError(
            f"SANGHA_MODEL is {str(file)!r}: the last {missing:,} bytes of the file are missing; download it again"
        )
    if find_spec("ctransformers") is None:
        raise ConfigurationError(
            "SANGHA_ENGINE is ctransformers, which is not installed: pip install sangha[ctransformers]"
        )
    return file


def _problems(contents: GgufContents) -> Iterator[str]:
    """Yield why the library cannot load the model."""
    text = {name: value for name, value in contents.metadata.items() if isinstance(value, bytes)}
    architecture = text.get("general.architecture", b"").decode()
    vocabulary = text.get("tokenizer.ggml.model", b"").decode()
    if architecture != "llama":
        yield f"its architecture is {architecture or 'not given'}"
    if vocabulary != "llama":
        yield f"its vocabulary is of the kind {vocabulary or 'not given'}, as in Llama 3"
    if any(tensor.name == "rope_freqs.weight" for tensor in contents.tensors):
        yield "it has rope_freqs.weight, as Llama 3.1 does"
    if others := {tensor.kind for tensor in contents.tensors} - KINDS:
        yield f"its weights are of a newer type (number {min(others)})"
