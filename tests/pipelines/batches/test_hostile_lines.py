"""Lines of an input file that would break or delay what reads them are errors with their number."""

import time
import tracemalloc

import orjson
import pytest

from pipelines.batches import input_lines
from pipelines.batches.input_lines import MAX_LINE_BYTES, InputLine, LineError, parse_line, split_lines

ENDPOINT = "/v1/responses"
LINE = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": {"input": "x"}}


def parse(content):
    return parse_line(InputLine(1, len(content), content), ENDPOINT, lambda model: None)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b'{"custom_id": "\xff"}',
        b"{'custom_id': 'a'}",
        b"[]",
        b'"text"',
        b"=cmd|'/c calc'!A1",
        orjson.dumps(LINE).replace(b'"x"', b'"\\u0000"'),
        orjson.dumps(LINE).replace(b'"a"', b'"\\u0000"'),
        orjson.dumps(LINE).replace(b'"x"', b'"\\ud800"'),
        orjson.dumps(LINE).replace(b'"x"', b"1e999"),
        orjson.dumps(LINE).replace(b'"x"', b"[" * 200 + b"]" * 200),
        orjson.dumps(LINE).replace(b'"x"', b"[" * 100_000),
        orjson.dumps(LINE)[:-1] + b',"custom_id":"b"}',
    ],
)
def test_what_cannot_be_stored_or_read_in_two_ways_is_no_request(content):
    with pytest.raises(LineError) as error:
        parse(content)

    assert error.value.code == "invalid_json_line"
    assert "line" in error.value.message


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"custom_id": ""}, "invalid_custom_id", "custom_id"),
        ({"custom_id": 5}, "invalid_custom_id", "custom_id"),
        ({"custom_id": "x" * 513}, "invalid_custom_id", "custom_id"),
        ({"method": "post"}, "invalid_method", "method"),
        ({"method": ["POST"]}, "invalid_method", "method"),
        ({"url": "https://example.com/v1/responses"}, "invalid_url", "url"),
        ({"url": "/v1/responses/../files"}, "invalid_url", "url"),
        ({"url": None}, "invalid_url", "url"),
        ({"body": []}, "invalid_body", "body"),
        ({"body": None}, "invalid_body", "body"),
        ({"x" * 1000: 1}, "unknown_parameter", "x" * 64),
    ],
)
def test_a_wrong_field_is_named(changes, code, param):
    with pytest.raises(LineError) as error:
        parse(orjson.dumps({**LINE, **changes}))

    assert (error.value.code, error.value.param) == (code, param)
    assert len(error.value.message) < 300


@pytest.mark.parametrize(
    "custom_id", ['=HYPERLINK("http://x")', "<script>", "../../etc", "'; DROP TABLE jobs;--", "🦊"]
)
def test_any_other_text_is_an_id(custom_id):
    assert parse(orjson.dumps({**LINE, "custom_id": custom_id}))[0] == custom_id


def test_a_line_of_100_mb_is_skipped_in_little_memory():
    chunks = (b"x" * 1_000_000 for _ in range(100))
    tracemalloc.start()

    [long, short] = split_lines(piece for part in (chunks, [b"\nend"]) for piece in part)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (long.content, short.content, short.number) == (None, b"end", 2)
    assert short.end == 100_000_004
    assert peak < 4 * MAX_LINE_BYTES


def test_lines_of_one_byte_are_split_in_linear_time():
    start = time.process_time()

    count = sum(1 for _ in split_lines([b"x\n" * 500_000] * 4))

    assert count == 2_000_000
    assert time.process_time() - start < 20


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_whatever_the_chunks(size, monkeypatch):
    monkeypatch.setattr(input_lines, "MAX_LINE_BYTES", 4)
    content = b"ab\n\ncdef\nghijk\r\nl"
    chunks = [content[start : start + size] for start in range(0, len(content), size)]

    lines = list(split_lines(chunks))

    assert [line.content for line in lines] == [b"ab", b"", b"cdef", None, b"l"]
    assert [content[: line.end] for line in lines][-1] == content
    for line in lines:
        assert list(split_lines([content[line.end :]], offset=line.end, number=line.number)) == lines[line.number :]
