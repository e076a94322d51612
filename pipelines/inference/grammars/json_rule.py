"""Write a JSON Schema as a rule of a grammar, in the language of llguidance, which llama.cpp contains."""

from collections.abc import Mapping
from typing import Any

import orjson

#: Options for compiling a schema. JSON has no line breaks: a small model that may write white space writes it without
#: end. Unsupported keywords are ignored; the API rejects them for callers that set `strict`.
OPTIONS = {"lenient": True, "coerce_one_of": True, "whitespace_flexible": False,
           "item_separator": ", ", "key_separator": ": "}  # fmt: skip

#: Of a `oneOf` whose choices may be valid together, the grammar would admit what several of them admit.
STRICT_OPTIONS = {**OPTIONS, "lenient": False, "coerce_one_of": False}

GRAMMAR_HEADER = "%llguidance {}\n"

#: The schema that admits any JSON object.
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def json_rule(schema: Mapping[str, Any], options: Mapping[str, Any] = OPTIONS) -> str:
    """Return the right side of a grammar rule: JSON that a schema admits."""
    return f"%json {orjson.dumps({**schema, 'x-guidance': options}).decode()}"


def schema_grammar(schema: Mapping[str, Any], options: Mapping[str, Any] = OPTIONS) -> str:
    """Return the grammar of JSON that a schema admits."""
    return f"{GRAMMAR_HEADER}start: {json_rule(schema, options)}"
