"""Grammars that hold an answer to its form, in llguidance's language, which llama.cpp speaks.

llama.cpp says nothing where a grammar is none: the answer comes unheld. So schemas are tried here before. Keywords that
llguidance doesn't know are passed over, as doors tell callers who want them kept. JSON comes on one line: a small model
that may write white space writes it without end.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import orjson
from llguidance import LLMatcher, LLTokenizer

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import Form, Tool
from pipelines.inference.llamacpp.tool_prompt import ARGUMENTS, CLOSE, END, NAME, OPEN

#: Properties of one object. llguidance gives up on a grammar with 2,000 choices at one place; a property makes four.
WIDEST = 400

#: Items that all arrays of a schema may count together. llama.cpp takes 300 bytes for each before the first token: a
#: billion of them would end the worker, and every worker after it.
MOST_ITEMS = 5_000

#: Bytes of a schema: compiling takes about 1 ms for 10,000.
LARGEST = 100_000

#: Any JSON object, and the one without arguments.
OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

#: Keywords beside which an object's properties are not all that it may have.
COMBINING = frozenset({"allOf", "anyOf", "oneOf", "$ref", "patternProperties"})

#: How a schema is read.
READING = {"lenient": True, "coerce_one_of": True, "whitespace_flexible": False,
           "item_separator": ", ", "key_separator": ": "}  # fmt: skip

STRICT = {**READING, "lenient": False}

HEAD = "%llguidance {}\n"

#: Text that doesn't call, nor plays what is called; and text up to the call that follows it. But for lazy ones, a
#: lexeme is as long as it can be.
TEXT = rf"""TEXT: /(?s:.+)/ & ~/(?s:.*<\/?tool_(call|response)>.*)/
OPENED: /(?s:.*){OPEN.strip()}\n/ & ~/(?s:.*<\/(tool_call|tool_response)>.*|.*<tool_response>.*)/
opened[lazy]: OPENED
"""


def problem(schema: Mapping[str, Any], *, strict: bool = False) -> str | None:
    """Why an answer can't be held to a JSON Schema, in a few words, or None. Loads no model.

    `strict` takes every keyword at its word; otherwise those that no grammar can hold, such as `not`, are passed over.
    """
    text = _json(schema)
    if len(text) > LARGEST:
        return f"it has more than {LARGEST} bytes"
    if _widest(schema) > WIDEST:
        return f"an object in it has more than {WIDEST} properties"
    if _counted(schema) > MOST_ITEMS:
        return f"its arrays count more than {MOST_ITEMS} items together"
    if strict and (why := _problem(f"{HEAD}start: %json {_json({**schema, 'x-guidance': STRICT})}")):
        return why
    return _problem(of_json(schema))


def check(form: Form) -> None:
    """Raise PermanentFailure("invalid_request") where an answer can't be held to the form."""
    if form.schema and (why := problem(form.schema)):
        raise PermanentFailure(f"an answer can't be held to this JSON Schema: {why}", code="invalid_request")
    for tool in form.callable:
        if why := problem(tool.parameters):
            raise PermanentFailure(
                f"calls of {tool.name} can't be held to its JSON Schema: {why}", code="invalid_request"
            )


def of_json(schema: Mapping[str, Any], opening: str = "") -> str:
    """The grammar of a JSON answer; `opening` is what stands before it where llama.cpp reads what was answered."""
    return f"{HEAD}start: {opening} answer\nanswer: %json {_held(schema or OBJECT)}"


def of_calls(form: Form, made: int) -> str:
    """The grammar of an answer that may call, from where it stands: `made` calls are written already.

    Text needs no memory: none of it holds the mark that begins a call, so its rest is text like its whole.
    Raises PermanentFailure("invalid_request") where it can't be held, though each schema alone could be.
    """
    tools = form.callable
    rules = [f"start: {_start(form, made)}"]
    rules += [f"call: {_quoted(OPEN)} called"]
    rules += [f"called: ({' | '.join(f'call{number}' for number in range(len(tools)))}) {_quoted(CLOSE)}"]
    rules += [line for number, tool in enumerate(tools) for line in _call(number, tool)]
    if form.schema is not None:
        rules += [f"answer: %json {_held(form.schema or OBJECT)}"]
    grammar = HEAD + "\n".join([*rules, TEXT])
    if why := _problem(grammar):
        raise PermanentFailure(f"calls can't be held to these JSON Schemas together: {why}", code="invalid_request")
    return grammar


def _start(form: Form, made: int) -> str:
    left = form.most_calls - made
    if made:
        return f'("\\n" call){{0,{left}}}'
    more = f'("\\n" call){{0,{left - 1}}}' if left > 1 else ""
    if form.must_call:
        return f"call {more}"
    if form.schema is not None:
        return f"answer | call {more}"
    return f"(TEXT | opened called {more})?"  # what was cut may have been at its end


def _call(number: int, tool: Tool) -> tuple[str, str]:
    opening = _quoted(f"{NAME}{_json(tool.name)}{ARGUMENTS}")
    parameters = _held(_closed(tool.parameters) if tool.parameters else NO_ARGUMENTS)
    return f"call{number}: {opening} arguments{number} {_quoted(END)}", f"arguments{number}: %json {parameters}"


def _closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """No arguments but those that are described, unless the schema says more: a small model makes some up."""
    return parameters if COMBINING & parameters.keys() else {"additionalProperties": False, **parameters}


def _held(schema: Mapping[str, Any]) -> str:
    return _json({**schema, "x-guidance": READING})


def _quoted(text: str) -> str:
    return _json(text)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


@cache
def _bytes() -> LLTokenizer:
    """A tokenizer whose tokens are bytes: enough to try a grammar."""
    return LLTokenizer("byte")


def _problem(grammar: str) -> str | None:
    matcher = LLMatcher(_bytes(), grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_logit_bias()
    if not matcher.is_error():
        return None
    first = str(matcher.get_error()).partition("\n")[0]
    return first.rpartition("failed to compile JSON schema: ")[2] or first


def _widest(value: object) -> int:
    """The most entries that an object in it has."""
    return max((len(found) for found in _objects(value)), default=0)


def _counted(value: object) -> float:
    """The items that its arrays count: as many as they may have, or must."""
    bounds = ((found.get("minItems"), found.get("maxItems")) for found in _objects(value))
    return sum(max((bound for bound in pair if isinstance(bound, int | float)), default=0) for pair in bounds)


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects in it, itself among them."""
    left = [value]
    while left:
        match left.pop():
            case Mapping() as found:
                yield found
                left += found.values()
            case list() as found:
                left += found
