"""Words are compared in one Unicode form, with their combining marks."""

import unicodedata

import pytest

from pipelines.memory.words import split_words


@pytest.mark.parametrize("text", ["Der Schlüssel hängt", "강아지를 보았다", "मेरी चाबी रसोई में है", "İzmir'de"])
def test_equivalent_texts_have_the_same_words(text: str) -> None:
    words = split_words(text)
    assert split_words(unicodedata.normalize("NFD", text)) == words
    assert len(words) == len(text.split())


def test_contractions_are_expanded() -> None:
    assert split_words("I\u2019m sure she doesn't") == ["i", "am", "sure", "she", "does", "not"]
