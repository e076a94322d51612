"""Check that a grammar can enforce a JSON Schema, before the engine starts. Loads no model.

Grammars are in the language of llguidance, which llama.cpp contains. llama.cpp reports no error for an invalid grammar
and generates an unconstrained answer, so every schema is compiled here first.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import orjson
from llguidance import LLMatcher, LLTokenizer

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import OutputFormat

#: Properties of one object. llguidance rejects a grammar with 2,000 choices at one position; a property makes four.
MAX_PROPERTIES = 400

#: Items that all arrays of a schema may count together. llama.cpp allocates 300 bytes for each before the first token:
#: a billion of them would crash the worker, and every worker that retries the job.
MAX_ITEMS = 5_000

#: Bytes of a schema: compiling takes about 1 ms for 10,000.
MAX_BYTES = 100_000

#: Options for compiling a schema. JSON has no line breaks: a small model that may write white space writes it without
#: end. Unsupported keywords are ignored; the API rejects them for callers that set `strict`.
OPTIONS = {"lenient": True, "coerce_one_of": True, "whitespace_flexible": False,
           "item_separator": ", ", "key_separator": ": "}  # fmt: skip

STRICT_OPTIONS = {**OPTIONS, "lenient": False}

GRAMMAR_HEADER = "%llguidance {}\n"

#: The schema that admits any JSON object.
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def schema_error(schema: Mapping[str, Any], *, strict: bool = False) -> str | None:
    """Return why a grammar can't enforce a JSON Schema, in a few words, or None.

    With `strict` a keyword that no grammar can enforce, such as `not`, is an error; otherwise it is ignored.
    """
    text = orjson.dumps(schema)
    if len(text) > MAX_BYTES:
        return f"it has more than {MAX_BYTES} bytes"
    if _largest_object(schema) > MAX_PROPERTIES:
        return f"an object in it has more than {MAX_PROPERTIES} properties"
    if _counted_items(schema) > MAX_ITEMS:
        return f"its arrays count more than {MAX_ITEMS} items together"
    if strict and (error := grammar_error(f"{GRAMMAR_HEADER}start: {json_rule(schema, STRICT_OPTIONS)}")):
        return error
    return grammar_error(f"{GRAMMAR_HEADER}start: {json_rule(schema or ANY_OBJECT)}")


def check_output_format(output_format: OutputFormat) -> None:
    """Raise PermanentFailure("invalid_request") where a grammar can't enforce the output format."""
    if output_format.schema and (error := schema_error(output_format.schema)):
        raise PermanentFailure(f"The answer cannot be constrained to this JSON Schema: {error}", code="invalid_request")
    for tool in output_format.callable_tools:
        if error := schema_error(tool.parameters):
            raise PermanentFailure(
                f"Calls of {tool.name} cannot be constrained to its JSON Schema: {error}", code="invalid_request"
            )


def grammar_error(grammar: str) -> str | None:
    """Compile a grammar. Returns the first line of the compiler's error, or None."""
    matcher = LLMatcher(_byte_tokenizer(), grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_logit_bias()
    if not matcher.is_error():
        return None
    first_line = str(matcher.get_error()).partition("\n")[0]
    return first_line.rpartition("failed to compile JSON schema: ")[2] or first_line


def json_rule(schema: Mapping[str, Any], options: Mapping[str, Any] = OPTIONS) -> str:
    """Return the right side of a grammar rule: JSON that a schema admits."""
    return f"%json {orjson.dumps({**schema, 'x-guidance': options}).decode()}"


@cache
def _byte_tokenizer() -> LLTokenizer:
    """Return a tokenizer whose tokens are bytes, which is enough to compile a grammar."""
    return LLTokenizer("byte")


def _largest_object(value: object) -> int:
    """Return the most entries that one object in the value has."""
    return max((len(entries) for entries in _objects(value)), default=0)


def _counted_items(value: object) -> float:
    """Return the sum over all arrays of the larger of `minItems` and `maxItems`."""
    bounds = ((entries.get("minItems"), entries.get("maxItems")) for entries in _objects(value))
    return sum(max((bound for bound in pair if isinstance(bound, int | float)), default=0) for pair in bounds)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield all objects in the value, including the value itself."""
    pending = [value]
    while pending:
        match pending.pop():
            case Mapping() as entries:
                yield entries
                pending += entries.values()
            case list() as elements:
                pending += elements
