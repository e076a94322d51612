"""Parsing of JSON objects: strict JSON, limits, and rejection of what cannot be stored."""

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import InvalidRequest
from pipelines.requests.json_objects import parse_object

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES))
def test_every_json_object_is_parsed_unchanged(value):
    assert parse_object(json.dumps(value).encode()) == value


@given(st.binary() | VALUES.map(orjson.dumps) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_parsed_as_an_object_or_rejected(body):
    try:
        value = parse_object(body)
    except InvalidRequest:
        return
    assert isinstance(value, dict)
    assert b"\\u0000" not in orjson.dumps(value).replace(b"\\\\", b"")


@given(VALUES, st.sampled_from(["\0", "a\0b"]), st.booleans())
def test_a_nul_character_is_rejected_at_any_depth(value, text, as_key):
    nested = {"outer": [value, {text: 1} if as_key else {"key": [text]}]}

    with pytest.raises(InvalidRequest):
        parse_object(json.dumps(nested).encode())


def test_an_escaped_backslash_before_u0000_is_not_a_nul_character():
    assert parse_object(rb'{"a": "\\u0000"}') == {"a": r"\u0000"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"b": [{"a": 1, "a": 2}]}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
    ],
)
def test_invalid_or_ambiguous_json_is_rejected(body):
    with pytest.raises(InvalidRequest) as error:
        parse_object(body)

    assert error.value.code == "invalid_json"


@pytest.mark.parametrize("member", [b"[],", b"{},", b"1,", b'"a",', b'"\\"[",'])
def test_a_body_with_too_many_values_is_rejected(member):
    body = b'{"a":[' + member * 100_001 + b"1]}"

    with pytest.raises(InvalidRequest, match="100000 values"):
        parse_object(body)


def test_delimiters_within_a_string_do_not_count_as_values():
    text = '[{,\\",' * 100_000

    assert parse_object(orjson.dumps({"a": text})) == {"a": text}


@pytest.mark.parametrize("body", [b'{"a":"' + b',\\"' * 400_000, b"," * 200_000 + b'"\\', b'"",' * 200_000])
def test_removing_strings_takes_linear_time(body):
    start = time.process_time()

    with pytest.raises(InvalidRequest):
        parse_object(body)

    assert time.process_time() - start < 2


def test_many_shallow_values_do_not_count_as_depth():
    body = b'{"a": [' + b",".join([b"[]"] * 1000) + b"]}"

    assert len(parse_object(body)["a"]) == 1000


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"a": "\\u0000"}'])
def test_an_error_calls_the_object_by_its_name(text):
    with pytest.raises(InvalidRequest, match=r"^The line "):
        parse_object(text, "line")
