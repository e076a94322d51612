"""Check that a grammar can enforce a JSON Schema. Runs in the child process: the time depends on the schema.

llama.cpp reports no error for an invalid grammar and generates an unconstrained answer, so every schema is compiled
before.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import orjson
from llguidance import LLMatcher, LLTokenizer

from pipelines.inference.grammars.finite import has_finite_value
from pipelines.inference.grammars.json_rule import ANY_OBJECT, STRICT_OPTIONS, schema_grammar
from pipelines.inference.grammars.subschemas import subschemas, without_patterns

#: Properties of one object. llguidance rejects a grammar with 2,000 choices at one position; a property makes four.
MAX_PROPERTIES = 400

#: Items that all arrays of a schema may count together. llama.cpp allocates 300 bytes for each before the first token:
#: a billion of them would crash the worker, and every worker that retries the job.
MAX_ITEMS = 5_000

#: Bytes of a schema: compiling takes about 1 ms for 10,000.
MAX_BYTES = 100_000

#: The digits of `multipleOf`, without a decimal point, as a number: the automaton has a state for each remainder.
#: 10,007 takes 0.05 s, 100,003 0.5 s, 1,000,003 11 s.
MAX_MULTIPLE = 10_000

#: Bytes of all regular expressions that may be ignored in one schema, since a verdict names them.
MAX_IGNORED_BYTES = 4_000

#: Characters of a regular expression that an error shows.
SHOWN = 100


class SchemaVerdict(NamedTuple):
    """The result of a check: an error, or None and the regular expressions that are to be ignored."""

    error: str | None
    ignored: tuple[str, ...] = ()


def check_schema(schema: Mapping[str, Any], *, strict: bool) -> SchemaVerdict:
    """Return why a grammar can't enforce a JSON Schema, in a few words.

    With `strict` a keyword or a regular expression that no grammar can enforce is an error; otherwise it is ignored.
    """
    if error := limit_error(schema) or _structure_error(schema):
        return SchemaVerdict(error)
    ignored = _unsupported_patterns(schema) if grammar_error(schema_grammar(schema or ANY_OBJECT)) else {}
    if strict and ignored:
        return SchemaVerdict("; ".join(f"{_place(name)}: {error}" for name, error in list(ignored.values())[:1]))
    if sum(map(len, ignored)) > MAX_IGNORED_BYTES:
        return SchemaVerdict("too many of its regular expressions cannot be enforced")
    if strict and (error := grammar_error(schema_grammar(schema, STRICT_OPTIONS))):
        return SchemaVerdict(OVERLAP if error.startswith("oneOf") else error)
    enforced = without_patterns(schema, frozenset(ignored)) if ignored else schema
    return SchemaVerdict(grammar_error(schema_grammar(enforced or ANY_OBJECT)), tuple(ignored))


#: Said in place of the compiler's error, which names an option of its own.
OVERLAP = "choices of its 'oneOf' may be valid together: use 'anyOf'"


def limit_error(schema: Mapping[str, Any]) -> str | None:
    """Return which limit the schema exceeds, or None. Takes time that is linear in the schema's size."""
    if len(orjson.dumps(schema)) > MAX_BYTES:
        return f"it has more than {MAX_BYTES} bytes"
    if _largest_object(schema) > MAX_PROPERTIES:
        return f"an object in it has more than {MAX_PROPERTIES} properties"
    if _counted_items(schema) > MAX_ITEMS:
        return f"its arrays count more than {MAX_ITEMS} items together"
    for name, part in subschemas(schema):
        if _digits(part.get("multipleOf")) > MAX_MULTIPLE:
            return f"{_place(name)}: 'multipleOf' has more than {MAX_MULTIPLE} remainders"
    return None


def grammar_error(grammar: str) -> str | None:
    """Compile a grammar. Returns the compiler's error in one line, or None."""
    matcher = LLMatcher(_byte_tokenizer(), grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_logit_bias()
    if not matcher.is_error():
        return None
    lines = str(matcher.get_error()).splitlines() or ["it does not compile"]
    cause = lines[0].rpartition("failed to compile JSON schema: ")[2] or lines[0]
    details = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{cause} {details[0]}" if cause.endswith(":") and details else cause


def _structure_error(schema: Mapping[str, Any]) -> str | None:
    """Return why a schema that compiles would not be enforced."""
    if not has_finite_value(schema):
        return "no finite value satisfies it, because a required property or item contains itself"
    for _, part in subschemas(schema):
        properties, patterns = part.get("properties"), part.get("patternProperties")
        if isinstance(properties, Mapping) and isinstance(patterns, Mapping):
            for pattern in patterns:
                if properties and _matches_any(pattern, list(properties)):
                    return f"the pattern '{pattern[:SHOWN]}' of 'patternProperties' matches a name of 'properties'"
    return None


def _matches_any(pattern: str, names: list[str]) -> bool:
    """Return whether a regular expression matches one of the names: llguidance rejects patterns that overlap."""
    literal = "|".join("".join(f"\\x{{{ord(letter):x}}}" for letter in name) for name in names)
    overlap = {"type": "object", "patternProperties": {pattern: {}, f"^({literal})$": {}}}
    return "not disjoint" in (grammar_error(schema_grammar(overlap)) or "")


def _unsupported_patterns(schema: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the regular expressions that do not compile, with the property and the reason."""
    unsupported = {}
    for name, pattern in _patterns(schema):
        if pattern not in unsupported and (
            error := grammar_error(schema_grammar({"type": "string", "pattern": pattern}))
        ):
            unsupported[pattern] = name, f"the pattern '{pattern[:SHOWN]}' cannot be enforced ({error})"
    return unsupported


def _patterns(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, part in subschemas(schema):
        if isinstance(pattern := part.get("pattern"), str):
            yield name, pattern
        if isinstance(named := part.get("patternProperties"), Mapping):
            yield from ((name, pattern) for pattern in named)


def _place(name: str) -> str:
    return f"property '{name[:SHOWN]}'" if name else "at the root"


def _digits(value: object) -> int:
    """Return the digits of a number, without sign, decimal point and final zeros, as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    digits = "".join(map(str, Decimal(repr(value)).normalize().as_tuple().digits))
    return int(digits)


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
