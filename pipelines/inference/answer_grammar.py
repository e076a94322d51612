"""Write the grammars that llama.cpp constrains an answer with, in llguidance's language. Loads no engine.

See `pipelines.inference.grammars.schema_check` for what a schema may contain. llama.cpp compiles each grammar itself,
between two batches of all slots, so it only gets what the child process has compiled within a limit. The API checks
a turn's grammar before it accepts the turn.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from models.platform.errors import PermanentFailure
from pipelines.inference.call_markup import COMMON, OBJECT_END, CallMarkup
from pipelines.inference.engine import OutputFormat, Tool
from pipelines.inference.grammars.compiler import BUDGET, TOO_COMPLEX, compiler
from pipelines.inference.grammars.json_rule import ANY_OBJECT, GRAMMAR_HEADER, json_rule
from pipelines.inference.json_schema import WORKER_BUDGET, enforced_schema

#: The arguments of a function without parameters.
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

#: Keywords beside which `properties` are not all that an object may have.
COMBINING_KEYWORDS = frozenset({"allOf", "anyOf", "oneOf", "$ref", "patternProperties"})

#: Text without a call or a call's markup, and text up to the call that follows it. A lexeme that is not lazy matches
#: as much as it can.
TEXT_RULES = rf"""TEXT: /(?s:.+)/ & ~/(?s:.*<\/?tool_(call|response)>.*)/
OPENED: /(?s:.*){COMMON.start}\n/ & ~/(?s:.*<\/(tool_call|tool_response)>.*|.*<tool_response>.*)/
opened[lazy]: OPENED
"""

#: Text that is not taken for a call without markers.
BARE_TEXT_RULE = r"""TEXT: /(?s:.+)/ & ~/(?s:\s*\{\s*"name"\s*:.*)/
"""


#: The tokens of which the grammar of JSON consists.
JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]|[,:] ')


@dataclass(frozen=True, slots=True)
class Preamble:
    """Symbols that a grammar admits before the answer, and the rules that define them."""

    symbols: str = ""
    rules: str = ""


NO_PREAMBLE = Preamble()


def json_grammar(schema: Mapping[str, Any], preamble: Preamble = NO_PREAMBLE) -> str:
    """Return the grammar of a JSON answer."""
    answer = f"start: {preamble.symbols} answer\nanswer: {_enforced_rule(schema)}"
    return f"{GRAMMAR_HEADER}{answer}\n{preamble.rules}"


def calls_grammar(
    output_format: OutputFormat, calls_made: int, preamble: Preamble = NO_PREAMBLE, markup: CallMarkup = COMMON
) -> str:
    """Return the grammar of the rest of an answer that may call, after `calls_made` calls.

    Text needs no state: it never contains the marker that begins a call, so its rest is text like its whole.
    Raises PermanentFailure("invalid_request") where the schemas together do not compile, though each alone would.
    """
    grammar = _calls_grammar(output_format, calls_made, preamble, markup)
    if error := _grammar_errors([grammar], WORKER_BUDGET)[0]:
        raise PermanentFailure(
            f"Calls cannot be constrained to these JSON Schemas together: {error}", code="invalid_request"
        )
    return grammar


@dataclass(frozen=True, slots=True)
class GrammarError:
    """Why the grammar of an answer does not compile, and the tool whose call alone does not, if there is one."""

    reason: str
    tool: Tool | None = None


def calls_error(output_format: OutputFormat, budget: float = BUDGET) -> GrammarError | None:
    """Return why calls in this output format cannot be constrained, though each of its schemas compiles, or None.

    Blocks while the child process compiles a grammar that is new.
    """
    tools = output_format.callable_tools
    reason = _grammar_errors([_calls_grammar(output_format, 0)], budget)[0] if tools else None
    if reason is None or reason == TOO_COMPLEX:
        return GrammarError(f"compiling all of them takes more than {budget:g} seconds") if reason else None
    alone = _grammar_errors([_calls_grammar(OutputFormat((tool,)), 0) for tool in tools], budget)
    failing = ((tool, error) for tool, error in zip(tools, alone, strict=False) if error not in (None, TOO_COMPLEX))
    tool, error = next(failing, (None, reason))
    return GrammarError(error or reason, tool)


def _grammar_errors(grammars: Sequence[str], budget: float) -> list[str | None]:
    """Return the compiler's errors of the grammars in order, up to the first one that does not compile."""
    return [verdict.error for verdict in compiler().check([{"grammar": grammar} for grammar in grammars], budget)]


def _calls_grammar(
    output_format: OutputFormat, calls_made: int, preamble: Preamble = NO_PREAMBLE, markup: CallMarkup = COMMON
) -> str:
    tools = output_format.callable_tools
    start = _bare_start(output_format) if markup.starts_answer else _start(output_format, calls_made)
    rules = [f"start: {preamble.symbols} ({start})"]
    rules += [f"call: {_symbol(markup.open)} called"]
    rules += [f"called: ({' | '.join(f'call{number}' for number in range(len(tools)))}) {_symbol(markup.close)}"]
    rules += [line for number, tool in enumerate(tools) for line in _call_rules(number, tool, markup, output_format)]
    if output_format.schema is not None:
        rules += [f"answer: {_enforced_rule(output_format.schema)}"]
    return GRAMMAR_HEADER + "\n".join([*rules, BARE_TEXT_RULE if markup.starts_answer else TEXT_RULES, preamble.rules])


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


def _bare_start(output_format: OutputFormat) -> str:
    """Return the start of an answer that is a call or has none. A text that has begun needs no grammar."""
    if output_format.must_call_tool:
        return "call"
    return "answer | call" if output_format.schema is not None else "TEXT | call"


def _call_rules(number: int, tool: Tool, markup: CallMarkup, output_format: OutputFormat) -> tuple[str, str]:
    head = f"{markup.name_key}{orjson.dumps(tool.name).decode()}{markup.arguments_key}"
    # A call without markers beside JSON: in the tokens of JSON, because the lexer takes the longest one, for good.
    beside_json = markup.starts_answer and output_format.schema is not None
    symbols = " ".join(map(_quote, JSON_TOKEN.findall(head))) if beside_json else _quote(head)
    parameters = json_rule(_closed(enforced_schema(tool.parameters)) if tool.parameters else NO_ARGUMENTS)
    return f"call{number}: {symbols} arguments{number} {_quote(OBJECT_END)}", f"arguments{number}: {parameters}"


def _enforced_rule(schema: Mapping[str, Any]) -> str:
    return json_rule(enforced_schema(schema) if schema else ANY_OBJECT)


def _closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Allow only the described arguments, unless the schema says otherwise: a small model invents some."""
    if COMBINING_KEYWORDS & parameters.keys() or _needs_undescribed(parameters):
        return parameters
    return {"additionalProperties": False, **parameters}


def _needs_undescribed(parameters: Mapping[str, Any]) -> bool:
    """Return whether no object of only the described properties satisfies the schema."""
    properties, required = parameters.get("properties") or {}, parameters.get("required") or ()
    return any(name not in properties for name in required) or parameters.get("minProperties", 0) > len(properties)


def _symbol(text: str) -> str:
    return _quote(text) if text else ""


def _quote(text: str) -> str:
    return orjson.dumps(text).decode()
