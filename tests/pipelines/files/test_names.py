"""Names and content of strangers are stored and served so that no browser and no folder misreads them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.files.names import MAX_NAME, REMOVED, detect_type, safe_filename, served_type


@given(st.text(max_size=600))
def test_a_safe_name_is_one_part_of_a_path(name):
    safe = safe_filename(name)

    assert safe not in ("", ".", "..")
    assert len(safe.encode()) <= MAX_NAME
    assert not {"/", "\\", "\0", "\r", "\n"} & set(safe)
    assert not [character for character in safe if unicodedata.category(character) in REMOVED]
    assert safe_filename(safe) == safe


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_that_is_cut_off_does_not_hide_a_text(cut):
    assert detect_type("text 🙂".encode()[:-cut], "a.txt") == "text/plain"


@pytest.mark.parametrize(
    "active", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "text/javascript", "x", ""]
)
def test_an_active_type_is_served_as_bytes(active):
    assert served_type(active) == "application/octet-stream"
