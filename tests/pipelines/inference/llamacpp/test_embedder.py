"""MiniLM's vectors, and its conversion."""

from pathlib import Path

import pytest

from models.platform.errors import ConfigurationError
from pipelines.inference.llamacpp import gguf_files, minilm
from pipelines.inference.llamacpp.embedder import Embedder


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_like_is_closer_than_unlike(embedder: Embedder) -> None:
    cat, kitten, stocks = embedder.embed(["A cat sleeps.", "The kitten is taking a nap.", "Shares fell on Monday."])
    assert cosine(cat, kitten) > 0.5 > 0.2 > cosine(cat, stocks)


def test_vectors_have_length_one(embedder: Embedder) -> None:
    vectors = embedder.embed(["", "word", "ünïcödé 猫 🦙", "long " * 3000])
    assert [len(vector) for vector in vectors] == [embedder.dimensions] * 4 == [384] * 4
    assert [cosine(vector, vector) for vector in vectors] == pytest.approx([1] * 4, abs=1e-5)


def test_order_is_kept_and_neighbours_do_not_matter(embedder: Embedder) -> None:
    texts = [f"{word} number {word}" for word in ("one", "two", "three", "four", "five")] * 5
    together = embedder.embed(texts)
    alone = [embedder.embed([text])[0] for text in texts[:5]]
    for at, vector in enumerate(together):
        assert cosine(vector, alone[at % 5]) > 0.999


def test_a_text_with_too_many_tokens_counts_by_its_beginning(embedder: Embedder) -> None:
    # Given a script in which each character is a token
    long, beside = embedder.embed(["猫" * 3000, "beside it"])
    # Then it has a vector, and its neighbour's is what it is alone
    assert cosine(long, long) == pytest.approx(1, abs=1e-5)
    assert cosine(beside, embedder.embed(["beside it"])[0]) > 0.999


def test_no_texts_are_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]) == []


def test_a_conversion_is_made_once_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "share" / "minilm.gguf"
    assert minilm.convert(target) == target
    assert gguf_files.check_gguf("embedding_model", str(target)) == target
    written = target.stat().st_mtime_ns
    minilm.convert(target)
    assert target.stat().st_mtime_ns == written
    assert list(target.parent.iterdir()) == [target]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, draft: Path) -> None:
        draft.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(minilm, "_write", fail)
    with pytest.raises(OSError, match="no space"):
        minilm.convert(tmp_path / "minilm.gguf")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "package_folder", lambda package: None)
    with pytest.raises(ConfigurationError, match="make install"):
        minilm.convert(tmp_path / "minilm.gguf")
