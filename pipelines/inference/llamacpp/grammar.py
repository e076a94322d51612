"""Write the grammars that llama.cpp constrains an answer with, in llguidance's language.

See `pipelines.inference.grammars.schema_check` for what a schema may contain. llama.cpp compiles each grammar itself,
between two batches of all slots, so it only gets what the child process has compiled within a limit.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import OutputFormat, Tool
from pipelines.inference.grammars.json_rule import ANY_OBJECT, GRAMMAR_HEADER, json_rule
from pipelines.inference.json_schema import enforced_schema, grammar_error
from pipelines.inference.llamacpp.tool_prompt import ARGUMENTS_KEY, CALL_CLOSE, CALL_OPEN, NAME_KEY, OBJECT_END

#: The arguments of a function without parameters.
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

#: Keywords beside which `properties` are not all that an object may have.
COMBINING_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf", "$ref", "patternProperties"})

#: Text without a call or a call's markup, and text up to the call that follows it. A lexeme that is not lazy matches
#: as much as it can.
TEXT_RULES = rf"""TEXT: /(?s:.+)/ & ~/(?s:.*<\/?tool_(call|response)>.*)/
OPENED: /(?s:.*){CALL_OPEN.strip()}\n/ & ~/(?s:.*<\/(tool_call|tool_response)>.*|.*<tool_response>.*)/
opened[lazy]: OPENED
"""


def json_grammar(schema: Mapping[str, Any], assistant_prefix: str = "") -> str:
    """Return the grammar of a JSON answer, after `assistant_prefix` where llama.cpp parses the answer so far, too."""
    return f"{GRAMMAR_HEADER}start: {assistant_prefix} answer\nanswer: {_enforced_rule(schema)}"


def calls_grammar(output_format: OutputFormat, calls_made: int) -> str:
    """Return the grammar of the rest of an answer that may call, after `calls_made` calls.

    Text needs no state: it never contains the marker that begins a call, so its rest is text like its whole.
    Raises PermanentFailure("invalid_request") where the schemas together do not compile, though each alone would.
    """
    tools = output_format.callable_tools
    rules = [f"start: {_start(output_format, calls_made)}"]
    rules += [f"call: {_quote(CALL_OPEN)} called"]
    rules += [f"called: ({' | '.join(f'call{number}' for number in range(len(tools)))}) {_quote(CALL_CLOSE)}"]
    rules += [line for number, tool in enumerate(tools) for line in _call_rules(number, tool)]
    if output_format.schema is not None:
        rules += [f"answer: {_enforced_rule(output_format.schema)}"]
    grammar = GRAMMAR_HEADER + "\n".join([*rules, TEXT_RULES])
    if error := grammar_error(grammar):
        raise PermanentFailure(
            f"Calls cannot be constrained to these JSON Schemas together: {error}", code="invalid_request"
        )
    return grammar


def _start(output_format: OutputFormat, calls_made: int) -> str:
    calls_left = output_format.max_calls - calls_made
    if calls_made:
        return f'("\\n" call){{0,{calls_left}}}'
    more_calls = f'("\\n" call){{0,{calls_left - 1}}}' if calls_left > 1 else ""
    if output_format.must_call_tool:
        return f"call {more_calls}"
    if output_format.schema is not None:
        return f"answer | call {more_calls}"
    return f"(TEXT | opened called {more_calls})?"  # optional: the answer may have been cut at its end


def _call_rules(number: int, tool: Tool) -> tuple[str, str]:
    head = _quote(f"{NAME_KEY}{orjson.dumps(tool.name).decode()}{ARGUMENTS_KEY}")
    parameters = json_rule(_closed(enforced_schema(tool.parameters)) if tool.parameters else NO_ARGUMENTS)
    return f"call{number}: {head} arguments{number} {_quote(OBJECT_END)}", f"arguments{number}: {parameters}"


def _enforced_rule(schema: Mapping[str, Any]) -> str:
    return json_rule(enforced_schema(schema) if schema else ANY_OBJECT)


def _closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Allow only the described arguments, unless the schema says otherwise: a small model invents some."""
    return parameters if COMBINING_KEYWORDS & parameters.keys() else {"additionalProperties": False, **parameters}


def _quote(text: str) -> str:
    return orjson.dumps(text).decode()
