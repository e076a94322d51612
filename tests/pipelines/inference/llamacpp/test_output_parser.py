"""The parser separates text and calls in output that comes in any pieces, and counts every token once."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.inference.call_markup import BARE, COMMON, CallMarkup
from pipelines.inference.control_tokens import ZERO_WIDTH_SPACE
from pipelines.inference.engine import (
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    OutputFormat,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.llamacpp.output_parser import OutputParser
from pipelines.inference.llamacpp.tool_prompt import render_calls as render_safe_calls

TOOLS_FORMAT = OutputFormat((Tool("weather", "", {"type": "object"}), Tool("mail", "", {"type": "object"})))
ROME = ToolCall("", "weather", '{"city": "Rome </tool_call>"}')
MAIL = ToolCall("", "mail", "{}")


def render_raw_calls(calls: list[ToolCall]) -> str:
    """Calls as the model writes them, without broken control tokens."""
    return render_safe_calls(calls).replace(ZERO_WIDTH_SPACE, "")


def parse(
    text: str,
    *,
    cuts: Sequence[int] = (),
    output_format: OutputFormat = TOOLS_FORMAT,
    reason: str = "stop",
    stop: tuple[str, ...] = (),
    calls: Sequence[ToolCall] = (),
    markup: CallMarkup = COMMON,
) -> tuple[str, list[tuple[str, str]], Finish]:
    """Parse a text that is cut at these positions, one token a piece."""
    positions = [0, *sorted(cuts), len(text)]
    outputs = [Token(text[a:b], 1) for a, b in pairwise(positions) if a < b]
    finish = Finish(reason, 7, 0, len(outputs))  # type: ignore[arg-type]
    parsed: list[EngineOutput] = list(
        OutputParser(output_format, Sampling(99, stop=stop), "", calls, markup).parse([*outputs, finish])
    )
    parsed_finish = parsed.pop()
    assert isinstance(parsed_finish, Finish)
    assert parsed_finish.generated_tokens == sum(output.count for output in parsed if not isinstance(output, Finish))
    parsed_calls = [(output.name, output.arguments) for output in parsed if isinstance(output, GeneratedCall)]
    return "".join(output.text for output in parsed if isinstance(output, Token)), parsed_calls, parsed_finish


@given(st.lists(st.integers(0, 140), max_size=9), st.sampled_from(["", "Let me see.", "a < b"]))
def test_text_and_calls_are_separated_wherever_the_output_is_cut(cuts: list[int], text_before: str) -> None:
    whole = f"{text_before}\n\n{render_raw_calls([ROME, MAIL])}"
    text, calls, finish = parse(whole, cuts=[min(cut, len(whole)) for cut in cuts])
    assert (text, calls) == (text_before, [("weather", ROME.arguments), ("mail", "{}")])
    assert finish.reason == "stop"


def test_an_incomplete_call_marker_is_text() -> None:
    assert parse("1 <tool_", cuts=[3, 5])[:2] == ("1 <tool_", [])


def test_an_incomplete_call_is_dropped_and_not_counted() -> None:
    text, calls, finish = parse(f"So: {render_raw_calls([MAIL, ROME])[:-9]}", cuts=[3, 70], reason="length")
    assert (text, calls) == ("So:", [("mail", "{}")])
    assert (finish.reason, finish.generated_tokens) == ("length", 2)


def test_a_repeated_call_ends_the_answer() -> None:
    assert parse(render_raw_calls([MAIL, MAIL, ROME]))[1] == [("mail", "{}")]
    assert parse(f"\n{render_raw_calls([MAIL, ROME])}", calls=[MAIL])[1:] == ([], Finish("stop", 7, 0, 0))


@given(st.lists(st.integers(0, 20), max_size=5))
def test_a_stop_text_ends_text_but_not_a_call(cuts: list[int]) -> None:
    assert parse("one two END three", cuts=[min(cut, 17) for cut in cuts], stop=("END",))[0] == "one two "
    assert parse(render_raw_calls([ROME]), cuts=cuts, stop=('"city"',))[1] == [("weather", ROME.arguments)]


@pytest.mark.parametrize("call", [ToolCall("", "other", "{}"), ToolCall("", "mail", "{nonsense")])
def test_an_invalid_call_is_an_engine_error(call: ToolCall) -> None:
    with pytest.raises(EngineError, match="unknown function"):
        parse(render_raw_calls([call]))


def test_an_answer_that_violates_the_output_format_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="called no function"):
        parse("no", output_format=OutputFormat(TOOLS_FORMAT.tools, "required"))
    with pytest.raises(EngineError, match="not JSON"):
        parse('{"a": ', output_format=OutputFormat(schema={}))
    assert parse('{"a": ', output_format=OutputFormat(schema={}), reason="length")[0] == '{"a": '


BARE_CALL = '{"name": "weather", "parameters": {"city": "Rome"}}'


@given(st.lists(st.integers(0, len(BARE_CALL)), max_size=9))
def test_a_call_without_markers_is_the_whole_answer(cuts: list[int]) -> None:
    assert parse(BARE_CALL, cuts=cuts, markup=BARE)[:2] == ("", [("weather", '{"city": "Rome"}')])
    assert parse(BARE_CALL[:-1], cuts=cuts, markup=BARE, reason="length")[:2] == ("", [])


@given(st.lists(st.integers(0, 12), max_size=4), st.sampled_from(["", "{", '{"nam', "Let me see.", " {", "a b STOP c"]))
def test_other_text_is_no_call_without_markers(cuts: list[int], text: str) -> None:
    whole = text.partition("STOP")[0]
    assert parse(text, cuts=[min(cut, len(text)) for cut in cuts], markup=BARE, stop=("STOP",))[:2] == (whole, [])
    assert parse(text + BARE_CALL if text.endswith(".") else text, markup=BARE)[1] == []


@given(st.lists(st.integers(0, 15), max_size=4))
def test_json_that_begins_like_a_call_without_markers_is_text(cuts: list[int]) -> None:
    output_format = OutputFormat(TOOLS_FORMAT.tools, schema={"type": "object"})
    assert parse('{"name": "Ann"}', cuts=cuts, markup=BARE, output_format=output_format)[:2] == ('{"name": "Ann"}', [])


def test_a_call_without_markers_of_an_unknown_function_is_an_error() -> None:
    with pytest.raises(EngineError):
        parse(BARE_CALL.replace("weather", "other"), markup=BARE)
