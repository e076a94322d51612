"""Given a form in pieces of any size, when it is read, then the result does not depend on the pieces."""

import pytest

from models.platform.errors import InvalidRequest
from web.http.forms import HEAD_BYTES, FormReader

CONTENT = b"\r\n--bound\r\n--boun" * 400 + b"\r\n-"
BODY = (
    b'--bound\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--bound\r\nContent-Disposition: form-data; name="file"; filename="\xc3\xbc.txt"\r\nContent-Type: x/y\r\n\r\n'
    + CONTENT.replace(b"--bound\r", b"--bouns\r")
    + b'\r\n--bound\r\ncontent-disposition: form-data; name="other"\r\n\r\n\r\n--bound--\r\nepilogue'
)


def read(pieces):
    form = FormReader("multipart/form-data; boundary=bound", "file")
    content = b"".join(part for piece in pieces for part in form.feed(piece))
    form.end()
    return form, content


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_a_form_is_read_in_pieces_of_any_size(size):
    form, content = read(BODY[start : start + size] for start in range(0, len(BODY), size))

    assert content == CONTENT.replace(b"--bound\r", b"--bouns\r")
    assert form.fields == {"purpose": "user_data", "other": ""}
    assert (form.filename, form.size) == ("ü.txt", len(content))
    assert form.head == content[:HEAD_BYTES]


def test_a_form_with_another_boundary_is_the_same_request():
    first, _ = read([BODY])
    second, _ = read([BODY[:100], BODY[100:]])
    third, _ = read([BODY.replace(b"user_data", b"batch")])

    assert first.digest == second.digest != third.digest


@pytest.mark.parametrize("end", range(1, 12))
def test_a_form_that_ends_early_is_rejected(end):
    with pytest.raises(InvalidRequest, match="ends before"):
        read([BODY.removesuffix(b"epilogue")[: -end - 2]])
