"""A quote ends at a word where words have spaces, and never inside of what a reader sees as one character."""

import pytest

from models.platform.texts import MAX_CLUSTER
from pipelines.memory.quotes import MAX_WORD, cut_quote, cut_text

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1f9\U0001f1f7"


def test_short_text_is_kept() -> None:
    assert cut_quote("Ein Text", 8) == "Ein Text"


def test_text_with_spaces_is_cut_before_a_word() -> None:
    text = "Der Schlüssel hängt in der Küche " * 20
    quote = cut_quote(text, 100)
    assert 100 - MAX_WORD <= len(quote) <= 100
    assert quote.endswith(" …")
    assert text.startswith(quote.removesuffix(" …") + " ")


@pytest.mark.parametrize(
    "sentence",
    [
        "鍵は台所の引き出しの奥にあります。",
        "护照藏在走廊的蓝色镜子后面。",
        "กุญแจอยู่ในลิ้นชักห้องครัว",
        '{"a":[1,2,3],"b":"c"}',
        "aGVsbG8gd29ybGQ=",
    ],
)
def test_text_without_spaces_loses_less_than_a_word(sentence: str) -> None:
    text = "memo " + sentence * 40
    for length in (20, 100, 250, 251, 252, 253, 400):
        quote = cut_quote(text, length)
        assert length - MAX_WORD <= len(quote) <= length
        assert text.startswith(quote.removesuffix(" …"))


@pytest.mark.parametrize("character", [FAMILY, FLAG, "e\u0301", "각", "नि", "กี่", "\U0001f44d\U0001f3fd"])
def test_cut_is_never_inside_a_character_of_several_code_points(character: str) -> None:
    text = character * 70
    for length in range(20, 60):
        kept = cut_text(text, length)
        assert kept == character * (length // len(character))


def test_cutting_again_changes_nothing() -> None:
    text = ("One two three. " + FAMILY * 3 + "鍵は台所 ") * 40
    for length in range(20, 120):
        quote = cut_quote(text, length)
        assert cut_quote(quote, length) == quote


def test_endless_character_is_cut_at_the_limit() -> None:
    assert cut_text("e" + "\u0301" * 1000, 300) == "e" + "\u0301" * 299
    assert len(cut_text("word " + "e" + "\u0301" * 1000, MAX_CLUSTER * 3)) == MAX_CLUSTER * 3
