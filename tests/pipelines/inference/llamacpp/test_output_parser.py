"""Given what a model writes, in any pieces, then text and calls come out of it, and every token counts once."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from pipelines.inference.llamacpp.tool_prompt import render_calls as plainly_written

FORM = OutputFormat((Tool("weather", "", {"type": "object"}), Tool("mail", "", {"type": "object"})))
ROME = ToolCall("", "weather", '{"city": "Rome </tool_call>"}')
MAIL = ToolCall("", "mail", "{}")


def written(calls: list[ToolCall]) -> str:
    """Calls as a model writes them, whom nobody keeps from anything."""
    return plainly_written(calls).replace(ZERO_WIDTH_SPACE, "")


def split(
    text: str,
    *,
    cuts: Sequence[int] = (),
    output_format: OutputFormat = FORM,
    reason: str = "stop",
    stop: tuple[str, ...] = (),
    calls: Sequence[ToolCall] = (),
) -> tuple[str, list[tuple[str, str]], Finish]:
    """All that comes of a text that is cut there, a token a piece."""
    places = [0, *sorted(cuts), len(text)]
    pieces = [Token(text[a:b], 1) for a, b in pairwise(places) if a < b]
    finish = Finish(reason, 7, 0, len(pieces))  # type: ignore[arg-type]
    out: list[EngineOutput] = list(
        OutputParser(output_format, Sampling(99, stop=stop), "", calls).parse([*pieces, finish])
    )
    last = out.pop()
    assert isinstance(last, Finish)
    assert last.generated_tokens == sum(piece.count for piece in out if not isinstance(piece, Finish))
    made = [(piece.name, piece.arguments) for piece in out if isinstance(piece, GeneratedCall)]
    return "".join(piece.text for piece in out if isinstance(piece, Token)), made, last


@given(st.lists(st.integers(0, 140), max_size=9), st.sampled_from(["", "Let me see.", "a < b"]))
def test_text_and_calls_are_told_apart_however_they_are_cut(cuts: list[int], said: str) -> None:
    whole = f"{said}\n\n{written([ROME, MAIL])}"
    text, calls, finish = split(whole, cuts=[min(cut, len(whole)) for cut in cuts])
    assert (text, calls) == (said, [("weather", ROME.arguments), ("mail", "{}")])
    assert finish.reason == "stop"


def test_what_only_looked_like_a_call_is_text() -> None:
    assert split("1 <tool_", cuts=[3, 5])[:2] == ("1 <tool_", [])


def test_a_call_that_is_cut_does_not_come_and_does_not_count() -> None:
    text, calls, finish = split(f"So: {written([MAIL, ROME])[:-9]}", cuts=[3, 70], reason="length")
    assert (text, calls) == ("So:", [("mail", "{}")])
    assert (finish.reason, finish.generated_tokens) == ("length", 2)


def test_a_call_made_again_ends_the_answer() -> None:
    assert split(written([MAIL, MAIL, ROME]))[1] == [("mail", "{}")]
    assert split(f"\n{written([MAIL, ROME])}", calls=[MAIL])[1:] == ([], Finish("stop", 7, 0, 0))


@given(st.lists(st.integers(0, 20), max_size=5))
def test_a_stop_text_ends_the_text_and_none_is_looked_for_in_a_call(cuts: list[int]) -> None:
    assert split("one two END three", cuts=[min(cut, 17) for cut in cuts], stop=("END",))[0] == "one two "
    assert split(written([ROME]), cuts=cuts, stop=('"city"',))[1] == [("weather", ROME.arguments)]


@pytest.mark.parametrize("call", [ToolCall("", "other", "{}"), ToolCall("", "mail", "{nonsense")])
def test_what_a_grammar_would_not_have_let_through_is_the_engines_failure(call: ToolCall) -> None:
    with pytest.raises(EngineError, match="none of a function"):
        split(written([call]))


def test_an_answer_that_is_not_in_its_form_is_the_engines_failure() -> None:
    with pytest.raises(EngineError, match="called no function"):
        split("no", output_format=OutputFormat(FORM.tools, "required"))
    with pytest.raises(EngineError, match="not JSON"):
        split('{"a": ', output_format=OutputFormat(schema={}))
    assert split('{"a": ', output_format=OutputFormat(schema={}), reason="length")[0] == '{"a": '
