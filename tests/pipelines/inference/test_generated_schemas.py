"""Every schema is rejected, or whatever its grammar admits satisfies it in the eyes of an independent validator.

The answers are random walks through the matcher that llama.cpp contains.
"""

import json
import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

from pipelines.inference.answer_grammar import calls_error, calls_grammar, json_grammar
from pipelines.inference.call_markup import COMMON, OBJECT_END
from pipelines.inference.engine import OutputFormat, Tool
from pipelines.inference.json_schema import NamedSchema, first_schema_error

FORMATS = Draft202012Validator.FORMAT_CHECKER

TOKENIZER = LLTokenizer("byte")

#: Bytes after which a walk gives up: the value may grow further, but the matcher has accepted it so far.
LONGEST = 600

#: Bytes that end a value, which a walk prefers, so that it comes to an end.
CLOSING = frozenset(b'"]}, \n')

NAMES = st.sampled_from(["a", "b", "c", "é"])
SMALL = st.integers(-3, 12)
SCALARS = st.one_of(st.none(), st.booleans(), SMALL, st.sampled_from(["", "a", "x y"]))
LEAVES = st.one_of(
    st.builds(lambda least, size: {"type": "integer", "minimum": least, "maximum": least + size}, SMALL, SMALL),
    st.builds(lambda factor: {"type": "integer", "minimum": 0, "multipleOf": factor}, st.integers(1, 9)),
    st.builds(lambda least: {"type": "number", "exclusiveMinimum": least, "maximum": 9}, SMALL),
    st.builds(lambda least, most: {"type": "string", "minLength": least, "maxLength": most}, SMALL, SMALL),
    st.builds(lambda text: {"type": "string", "pattern": text}, st.sampled_from(["^a+$", "^[a-c]{2}$", "b", r"^\d$"])),
    st.builds(lambda name: {"type": "string", "format": name}, st.sampled_from(["date", "uuid", "ipv4"])),
    st.builds(lambda value: {"const": value}, SCALARS),
    st.builds(lambda values: {"enum": values}, st.lists(SCALARS, max_size=3)),
    st.builds(lambda names: {"type": names}, st.lists(st.sampled_from(["null", "boolean", "string"]), unique=True)),
    st.sampled_from([True, False, {}, {"type": "foo"}, {"$ref": "#"}, {"$ref": "#/$defs/no"}, {"not": {}}]),
)


def _objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords = {
        "properties": st.dictionaries(NAMES, parts, max_size=3),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "additionalProperties": st.one_of(st.booleans(), parts),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "^x-"]), parts, max_size=1),
        "minProperties": st.integers(0, 2),
        "maxProperties": st.integers(0, 3),
    }
    return st.fixed_dictionaries({"type": st.just("object")}, optional=keywords)


def _arrays(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords = {
        "items": parts,
        "prefixItems": st.lists(parts, max_size=2),
        "minItems": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
    }
    return st.fixed_dictionaries({"type": st.just("array")}, optional=keywords)


def _combined(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(parts, min_size=1, max_size=2)
    return st.one_of(*(st.builds(lambda each, key=key: {key: each}, several) for key in ("anyOf", "allOf", "oneOf")))


SCHEMAS = st.recursive(
    LEAVES, lambda parts: st.one_of(_objects(parts), _arrays(parts), _combined(parts)), max_leaves=6
).filter(lambda schema: isinstance(schema, dict))
PARAMETERS = _objects(st.recursive(LEAVES, lambda parts: st.one_of(_objects(parts), _arrays(parts)), max_leaves=4))

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def walk(grammar: str, seed: int) -> str | None:
    """Return a random text that the grammar admits, or None where it became too long. Fails where there is none."""
    generator, matcher, text = random.Random(seed), LLMatcher(TOKENIZER, grammar, log_level=0), bytearray()
    while len(text) < LONGEST:
        allowed = [byte for byte, bias in enumerate(matcher.compute_logit_bias()[:256]) if bias]
        assert not matcher.is_error(), matcher.get_error()
        if matcher.is_accepting() and (not allowed or generator.random() < 0.5):
            return text.decode()
        assert allowed, f"the grammar admits nothing after {bytes(text)!r}"
        closing = [byte for byte in allowed if byte in CLOSING]
        byte = generator.choice(closing if closing and generator.random() < 0.6 else allowed)
        assert matcher.consume_token(byte), matcher.get_error()
        text.append(byte)
    return None


def require_valid(value: str, schema: Mapping[str, Any]) -> None:
    """Fail unless the value satisfies the schema. A schema that refers to itself for the same value has no verdict."""
    with suppress(RecursionError):
        Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(value))


@PROPERTY
@given(SCHEMAS, st.integers(0, 9))
def test_a_strict_schema_is_rejected_or_every_answer_satisfies_it(schema: dict[str, Any], seed: int) -> None:
    if found := first_schema_error([NamedSchema("text", schema, strict=True)]):
        assert found[0] == "text"
    elif answer := walk(json_grammar(schema), seed):
        require_valid(answer, schema)


@PROPERTY
@given(st.lists(PARAMETERS, min_size=1, max_size=3), st.integers(0, 9))
def test_strict_tools_are_rejected_or_every_call_satisfies_its_schema(schemas: list[Any], seed: int) -> None:
    tools = tuple(Tool(f"f{number}", "", schema) for number, schema in enumerate(schemas))
    output_format = OutputFormat(tools, "required", parallel=False)
    if first_schema_error([NamedSchema(tool.name, tool.parameters, strict=True) for tool in tools]):
        return
    if calls_error(output_format):
        return
    if call := walk(calls_grammar(output_format, 0), seed):
        name, _, arguments = call.removesuffix(f"{OBJECT_END}{COMMON.close}").partition(COMMON.arguments_key)
        require_valid(arguments, next(tool.parameters for tool in tools if f'"{tool.name}"' in name))


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "required": ["x"]},
        {"type": "object", "properties": {"a": {}}, "required": ["x"]},
        {"type": "object", "minProperties": 1},
    ],
)
def test_arguments_that_are_required_but_not_described_are_possible(parameters: dict[str, Any]) -> None:
    output_format = OutputFormat((Tool("f", "", parameters),), "required", parallel=False)
    assert calls_error(output_format) is None
    assert walk(calls_grammar(output_format, 0), 1)
