"""A model file that is missing or invalid is one line that names the setting."""

from pathlib import Path

import pytest

from models.platform.errors import ConfigurationError
from models.platform.settings import Settings
from pipelines.inference.llamacpp import gguf_files
from pipelines.inference.llamacpp.embedder import load_embedder
from pipelines.inference.llamacpp.engine import load_llamacpp


def single_line(error: pytest.ExceptionInfo[ConfigurationError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("field", ["model", "embedding_model"])
@pytest.mark.parametrize(
    "content", [None, b"", b"PK\x03\x04zip", b"GGUFbroken", b"GGUF\x03\0\0\0" + bytes(99), "folder"]
)
def test_an_invalid_file_is_one_line_with_path_and_variable(
    tmp_path: Path, field: str, content: bytes | str | None
) -> None:
    # Given a path of nothing, a folder, another file, or a damaged GGUF file
    path = tmp_path / "some.gguf"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    # When it is loaded
    settings = Settings.model_validate({field: str(path)})
    with pytest.raises(ConfigurationError) as caught:
        load_llamacpp(settings) if field == "model" else load_embedder(settings)
    # Then one line names path and variable
    line = single_line(caught)
    assert str(path) in line
    assert f"SANGHA_{field.upper()}" in line


def test_an_unreadable_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.gguf"
    path.touch()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match="can't be read"):
        gguf_files.check_gguf("model", str(path))


def test_a_missing_bundled_model_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    monkeypatch.setattr(gguf_files, "BUNDLED_EMBEDDER", tmp_path / "none.gguf")
    for find in (gguf_files.engine_file, gguf_files.embedder_file):
        with pytest.raises(ConfigurationError, match="make install"):
            find(Settings())
