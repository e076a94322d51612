"""Given any name of a file, when it is in a header, then it stays inside its quotes and its line."""

from hypothesis import given
from hypothesis import strategies as st

from models.platform.content_disposition import content_disposition


@given(st.text(max_size=300))
def test_a_name_stays_inside_its_header(name):
    header = content_disposition(name)

    header.encode("ascii")
    assert header.startswith('attachment; filename="')
    plain = header.removeprefix('attachment; filename="').partition('"')[0]
    assert header.partition(f'"{plain}"')[2].split("''")[0] in ("", "; filename*=UTF-8")


def test_a_name_beyond_ascii_has_both_forms():
    assert content_disposition("Größe 1.txt") == (
        "attachment; filename=\"Gr__e 1.txt\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.txt"
    )
    assert content_disposition('a"b.txt') == "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"


def test_a_name_cannot_end_the_header():
    header = content_disposition('a"\r\nset-cookie: b=c; x="\\.html')

    assert "\r" not in header
    assert "\n" not in header
    assert header.count('"') == 2
