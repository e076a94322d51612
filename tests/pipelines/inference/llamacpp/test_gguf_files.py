"""Bad paths end with one line that names the setting."""

from pathlib import Path

import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from pipelines.inference.llamacpp import gguf_files
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.inference.llamacpp.engine import load_llamacpp


def one_line(error: pytest.ExceptionInfo[ConfigurationError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("field", ["model", "embedding_model"])
@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04zip", b"GGUFbroken", b"GGUF\x03\0\0\0" + bytes(99), "folder"]
)
def test_a_bad_file_is_named(tmp_path: Path, field: str, content: bytes | str | None) -> None:
    # Given a path that leads to nothing, to a folder, to another file, or to a broken GGUF file
    path = tmp_path / "some.gguf"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    # When it is loaded
    settings = Settings.model_validate({field: str(path)})
    with pytest.raises(ConfigurationError) as caught:
        load_llamacpp(settings) if field == "model" else load_embedder(settings)
    # Then one line says which
    line = one_line(caught)
    assert str(path) in line
    assert f"SANGHA_{field.upper()}" in line


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.gguf"
    path.touch()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match="can't be read"):
        gguf_files.check_gguf("model", str(path))


def test_without_the_bundled_models_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    monkeypatch.setattr(gguf_files, "BUNDLED_EMBEDDER", tmp_path / "none.gguf")
    for find in (gguf_files.engine_file, gguf_files.embedder_file):
        with pytest.raises(ConfigurationError, match="make install"):
            find(Settings())
