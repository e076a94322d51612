"""Texts are cut to a length, between user-perceived characters, and the cut is marked."""

import pytest

from models.platform.texts import MAX_CLUSTER, truncate

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"


def test_a_text_of_the_maximal_length_is_kept() -> None:
    assert truncate("n" * 100) == "n" * 100


def test_a_longer_text_has_the_maximal_length_with_its_ellipsis() -> None:
    assert truncate("n" * 101) == "n" * 99 + "…"


@pytest.mark.parametrize("length", range(6, 11))
def test_a_character_of_several_code_points_is_left_out_as_a_whole(length: int) -> None:
    assert truncate(FAMILY * 5, length) == FAMILY + "…"


def test_a_character_of_endless_marks_is_split() -> None:
    assert truncate("e" + "\u0301" * 1000, MAX_CLUSTER * 2) == "e" + "\u0301" * (MAX_CLUSTER * 2 - 2) + "…"
