"""Parse JSON objects strictly.

A parsed object can be stored: it is valid UTF-8 without NUL characters (Postgres cannot store them) and without
duplicate keys (parsers differ in which one they take), and its depth is limited.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from models.platform.errors import InvalidRequest
from models.platform.texts import truncate

#: Levels of nesting. JSON Schemas of real tools have about ten.
MAX_DEPTH = 100

#: Values in an object. Parsing a million empty lists blocks the process for seconds.
MAX_VALUES = 100_000

#: A JSON string, up to its end or that of the text.
STRING = re.compile(rb'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)


def parse_object(text: bytes, name: str = "body") -> dict[str, Any]:
    """Parse a JSON object. Raises InvalidRequest, which calls it by its name."""
    try:
        _check_size(text)
        value = orjson.loads(text)
        if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
            _check_depth(value)
        json.loads(text, object_pairs_hook=_reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The {name} is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The {name} should be a JSON object.", code="invalid_json")
    if b"\\u0000" in text:
        _check_characters(value, name)
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {truncate(duplicate)!r} occurs twice in an object")
    return members


def _check_size(body: bytes) -> None:
    """Count the delimiters before values; strings, which may contain them too, are removed only when there are many."""
    if _delimiters(body) > MAX_VALUES and _delimiters(STRING.sub(b"", body)) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES} values")


def _delimiters(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{") + body.count(b",")


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_characters(value: object, name: str) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str) and "\0" in item:
            raise InvalidRequest(f"The {name} contains a NUL character (\\u0000).", code="invalid_character")
        stack.extend(_children(item))
        if isinstance(item, dict):
            stack.extend(item.keys())


def _children(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value) if isinstance(value, list) else iter(())
