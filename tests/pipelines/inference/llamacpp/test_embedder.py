"""MiniLM's vectors, and its conversion to GGUF."""

from pathlib import Path

import pytest

from models.platform.errors import ConfigurationError
from pipelines.inference.llamacpp import gguf_files, minilm
from pipelines.inference.llamacpp.embedder import Embedder


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_similar_texts_have_closer_vectors(embedder: Embedder) -> None:
    cat, kitten, stocks = embedder.embed(["A cat sleeps.", "The kitten is taking a nap.", "Shares fell on Monday."])
    assert cosine(cat, kitten) > 0.5 > 0.2 > cosine(cat, stocks)


def test_vectors_have_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed(["", "word", "ünïcödé 猫 🦙", "long " * 3000])
    assert [len(vector) for vector in vectors] == [embedder.dimensions] * 4 == [384] * 4
    assert [cosine(vector, vector) for vector in vectors] == pytest.approx([1] * 4, abs=1e-5)


def test_vectors_keep_the_order_and_do_not_depend_on_their_batch(embedder: Embedder) -> None:
    texts = [f"{word} number {word}" for word in ("one", "two", "three", "four", "five")] * 5
    together = embedder.embed(texts)
    alone = [embedder.embed([text])[0] for text in texts[:5]]
    for at, vector in enumerate(together):
        assert cosine(vector, alone[at % 5]) > 0.999


def test_a_long_text_is_embedded_by_its_beginning(embedder: Embedder) -> None:
    # Given text in which each character is a token
    long, beside = embedder.embed(["猫" * 3000, "beside it"])
    # Then it has a vector, and the other's vector is the same as alone
    assert cosine(long, long) == pytest.approx(1, abs=1e-5)
    assert cosine(beside, embedder.embed(["beside it"])[0]) > 0.999


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]) == []


def test_a_model_is_converted_once_without_temporary_files(tmp_path: Path) -> None:
    target = tmp_path / "share" / "minilm.gguf"
    assert minilm.convert(target) == target
    assert gguf_files.check_gguf("embedding_model", str(target)) == target
    written = target.stat().st_mtime_ns
    minilm.convert(target)
    assert target.stat().st_mtime_ns == written
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_conversion_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(minilm, "_write", fail)
    with pytest.raises(OSError, match="no space"):
        minilm.convert(tmp_path / "minilm.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "package_folder", lambda package: None)
    with pytest.raises(ConfigurationError, match="make install"):
        minilm.convert(tmp_path / "minilm.gguf")
