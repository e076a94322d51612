"""Given the content of a file in a request, when it is decoded, then a data URL and base64 are the same."""

import base64
import time

import pytest

from pipelines.requests.file_parts import content_of

DATA = base64.b64encode(b"some text").decode()


@pytest.mark.parametrize(
    "prefix", ["", "data:;base64,", "data:text/plain;base64,", "DATA:text/csv;charset=utf-8;name=a.csv;BASE64,"]
)
def test_content_is_decoded_with_and_without_a_prefix(prefix):
    assert content_of(prefix + DATA) == b"some text"


@pytest.mark.parametrize("data", ["data:text/plain,some text", "data:;base64", f"x{DATA}", "größe", f"{DATA}\n{DATA}"])
def test_other_texts_are_rejected(data):
    with pytest.raises(ValueError, match="should be a data URL"):
        content_of(data)


@pytest.mark.parametrize("piece", [";", "a;", ";base64", "data:"])
def test_hostile_prefix_is_rejected_at_once(piece):
    data = "data:" + piece * (2_000_000 // len(piece))
    began = time.process_time()

    with pytest.raises(ValueError, match="should be a data URL"):
        content_of(data)

    assert time.process_time() - began < 0.1
