"""The scripted engine plays the same answer from any position."""

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import PermanentFailure
from models.platform.script import Script
from models.platform.settings import Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    ReasoningToken,
    Sampling,
    Token,
    TokenLogprob,
    Tool,
    ToolCall,
)
from pipelines.inference.scripted.engine import ScriptedEngine

PROMPT = [Message("system", "be kind"), Message("user", "hello there")]


def scripted(**script: object) -> ScriptedEngine:
    return ScriptedEngine(Settings(engine="scripted", script=Script.model_validate(script)))


def script_text(tokens: int) -> str:
    return "".join(f"w{index} " for index in range(tokens))


def play(
    engine: ScriptedEngine,
    prefix: str = "",
    max_tokens: int = 1000,
    cancelled: Callable[[], bool] = lambda: False,
    prompt: list[Message] = PROMPT,
) -> tuple[str, Finish]:
    outputs = list(engine.generate(prompt, prefix=prefix, sampling=Sampling(max_tokens), cancelled=cancelled))
    tokens = [output for output in outputs if isinstance(output, Token)]
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(token.count for token in tokens)
    return "".join(token.text for token in tokens), finish


def test_the_answer_is_the_script() -> None:
    assert play(scripted(tokens=3)) == ("w0 w1 w2 ", Finish("stop", 4, 0, 3))


@given(tokens=st.integers(0, 120), data=st.data())
def test_a_prefix_cut_anywhere_is_continued_exactly(tokens: int, data: st.DataObject) -> None:
    # Given an answer cut at any character
    text = script_text(tokens)
    cut = data.draw(st.integers(0, len(text)))
    # When it is continued
    rest, finish = play(scripted(tokens=tokens), text[:cut])
    # Then nothing is lost or repeated, and a token cut in two counts once more
    assert text[:cut] + rest == text
    assert finish == Finish("stop", 4, 0, tokens - text[:cut].count(" "))


@given(tokens=st.integers(0, 30), max_tokens=st.integers(0, 40), played=st.integers(0, 30))
def test_the_token_limit_does_not_count_the_prefix(tokens: int, max_tokens: int, played: int) -> None:
    played = min(played, tokens)
    rest, finish = play(scripted(tokens=tokens), script_text(played), max_tokens)
    assert script_text(played) + rest == script_text(min(tokens, played + max_tokens))
    assert finish.reason == ("length" if played + max_tokens < tokens else "stop")


def test_an_engine_that_restarts_ignores_the_prefix() -> None:
    engine = scripted(tokens=2, restarts=1)
    assert not engine.continues
    assert play(engine, "w0 ")[0] == "w0 w1 "


def test_words_carry_a_mark_of_their_attempt() -> None:
    # Given an answer of which an attempt played two words
    engine = scripted(tokens=4, nonce=1)
    begun, _ = play(engine, max_tokens=2)
    # When another attempt continues it
    rest, _ = play(engine, begun)
    # Then the words are the script's, with one mark for each attempt
    words = [word.split(".") for word in (begun + rest).split()]
    assert [word for word, _ in words] == ["w0", "w1", "w2", "w3"]
    assert words[0][1] == words[1][1] != words[2][1] == words[3][1]


@pytest.mark.parametrize(("request_", "slow"), [("tell me slowly", True), ("tell me", False)])
def test_an_answer_is_slow_where_that_is_requested(request_: str, slow: bool) -> None:
    polls = itertools.count()
    engine = scripted(tokens=3, slow=0.001)
    text, _ = play(engine, cancelled=lambda: next(polls) == 9, prompt=[Message("user", request_)])
    assert text == ("w0 " if slow else "w0 w1 w2 ")


def test_tokens_come_at_the_rate() -> None:
    start = time.monotonic()
    play(scripted(tokens=11, rate=100))
    assert 0.1 <= time.monotonic() - start < 5


def test_cancelling_stops_between_two_tokens() -> None:
    polls = itertools.count()
    text, finish = play(scripted(tokens=9), cancelled=lambda: next(polls) == 3)
    assert (text, finish) == ("w0 w1 w2 ", Finish("cancelled", 4, 0, 3))


def test_cancelling_stops_the_wait_for_the_next_token() -> None:
    polls = itertools.count()
    text, finish = play(scripted(tokens=2, rate=0.001), cancelled=lambda: next(polls) == 3)
    assert (text, finish.reason) == ("w0 ", "cancelled")


def test_a_fault_occurs_once_and_not_in_the_attempt_that_continues() -> None:
    # Given a script that fails before its third token
    engine = scripted(tokens=5, fail_at=2)
    items = engine.generate(PROMPT, prefix="", sampling=Sampling(9), cancelled=lambda: False)
    read = [next(items), next(items)]
    with pytest.raises(EngineError, match="before token 2"):
        next(items)
    # When the retry continues where it failed, it succeeds
    prefix = "".join(token.text for token in read if isinstance(token, Token))
    assert prefix + play(engine, prefix)[0] == script_text(5)
    # But one that lost a token fails again
    with pytest.raises(EngineError):
        play(engine, "w0 ")


def test_a_fault_before_the_first_token_occurs_in_every_attempt() -> None:
    for _ in range(2):
        with pytest.raises(EngineError):
            play(scripted(fail_at=0))


def test_a_hang_lasts_until_cancelled() -> None:
    polls = itertools.count()
    assert play(scripted(tokens=5, hang_at=1), cancelled=lambda: next(polls) > 5)[1] == Finish("cancelled", 4, 0, 1)


@pytest.mark.parametrize(("last", "occurs"), [("please break now", True), ("hello", False)])
def test_a_trigger_is_searched_in_the_last_user_message(last: str, occurs: bool) -> None:
    prompt = [Message("user", "do not break"), Message("assistant", "break"), Message("user", last)]
    engine = scripted(tokens=2, fail_at=1, trigger="break")
    if occurs:
        with pytest.raises(EngineError):
            play(engine, prompt=prompt)
    else:
        assert play(engine, prompt=prompt)[0] == "w0 w1 "


def test_an_exit_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    play(scripted(tokens=3, exit_at=1))
    assert codes == [1]


WEATHER = Tool("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
NOW = Tool("now", "", {})


def answer(
    engine: ScriptedEngine,
    output_format: OutputFormat,
    message: str = "hello",
    prefix: str = "",
    calls: int = 0,
    **sampling: object,
) -> tuple[str, list[tuple[str, str]], Finish]:
    """Return the text, the calls and the end of an answer in an output format."""
    earlier_calls = [ToolCall(str(number), "weather", "{}") for number in range(calls)]
    outputs = list(
        engine.generate(
            [Message("user", message)],
            prefix=prefix,
            sampling=Sampling(**{"max_output_tokens": 99, **sampling}),  # type: ignore[arg-type]
            cancelled=lambda: False,
            output_format=output_format,
            calls=earlier_calls,
        )
    )
    finish = outputs[-1]
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(output.count for output in outputs if not isinstance(output, Finish))
    generated_calls = [(output.name, output.arguments) for output in outputs if isinstance(output, GeneratedCall)]
    return "".join(output.text for output in outputs if isinstance(output, Token)), generated_calls, finish


def test_a_call_is_played_where_required_or_requested() -> None:
    engine, both = scripted(tokens=2, calls=2, preface=1), (WEATHER, NOW)
    call = ("weather", '{"city":""}')
    assert answer(engine, OutputFormat(both, "required"))[:2] == ("", [call, call])
    assert answer(engine, OutputFormat(both, "required", parallel=False))[:2] == ("", [call])
    assert answer(engine, OutputFormat(both, ("function", "now")))[:2] == ("", [("now", "{}")])
    assert answer(engine, OutputFormat(both), "please call now")[:2] == ("w0 ", [("now", "{}"), ("now", "{}")])
    assert answer(engine, OutputFormat(both))[:2] == ("w0 w1 ", [])
    assert answer(engine, OutputFormat(both, "none"), "call now")[:2] == ("w0 w1 ", [])


def test_a_tool_result_is_answered_with_text() -> None:
    conversation = [Message("user", "call now"), Message("assistant", "", (ToolCall("1", "now", "{}"),))]
    prompt = [*conversation, Message("tool", "noon", call_id="1")]
    items = scripted(tokens=1).generate(
        prompt, prefix="", sampling=Sampling(9), cancelled=lambda: False, output_format=OutputFormat((NOW,))
    )
    assert next(items) == Token("w0 ", 1)


def test_calls_are_continued_up_to_the_token_limit() -> None:
    engine, output_format = scripted(calls=3, preface=1), OutputFormat((WEATHER,))
    assert len(answer(engine, output_format, "call weather", "w0 ", 1)[1]) == 2
    assert answer(engine, output_format, "call weather", "w0 ", 3)[1] == []
    text, calls, finish = answer(engine, output_format, "call weather", max_output_tokens=2)
    assert (text, len(calls), finish.reason) == ("w0 ", 1, "length")


@given(st.data())
def test_json_is_continued_exactly(data: st.DataObject) -> None:
    output_format = OutputFormat(
        schema={"type": "object", "properties": {"a b": {"enum": ["x y"]}}, "required": ["a b"]}
    )
    script_text, _, finish = answer(scripted(), output_format)
    assert (script_text, finish.reason) == ('{"a b":"x y"}', "stop")
    cut = data.draw(st.integers(0, len(script_text)))
    assert script_text[:cut] + answer(scripted(), output_format, prefix=script_text[:cut])[0] == script_text


def test_a_stop_text_across_tokens_ends_the_answer() -> None:
    text, _, finish = answer(scripted(tokens=9), PLAIN_TEXT, stop=("2 w3", "never"))
    assert (text, finish) == ("w0 w1 w", Finish("stop", 1, 0, 3))
    assert answer(scripted(tokens=2), PLAIN_TEXT, stop=("w1 w",))[0] == "w0 w1 "


def test_an_invalid_schema_is_a_permanent_failure() -> None:
    with pytest.raises(PermanentFailure):
        answer(scripted(), OutputFormat(schema={"type": "foo"}))


def outputs_of(engine: ScriptedEngine, sampling: Sampling, prefix: str = "", reasoning: str = "") -> list[object]:
    return list(engine.generate(PROMPT, prefix=prefix, sampling=sampling, cancelled=lambda: False, reasoning=reasoning))


@given(tokens=st.integers(0, 5), data=st.data())
def test_reasoning_cut_anywhere_is_continued_exactly(tokens: int, data: st.DataObject) -> None:
    # Given an answer with reasoning, cut at any character of it
    engine, thought = scripted(tokens=2, reasoning=tokens), "".join(f"r{index} " for index in range(tokens))
    cut = data.draw(st.integers(0, len(thought)))
    # When it is continued
    outputs = outputs_of(engine, Sampling(100), reasoning=thought[:cut])
    # Then the rest of the reasoning precedes the text
    rest = "".join(output.text for output in outputs if isinstance(output, ReasoningToken))
    assert (rest, "".join(output.text for output in outputs if isinstance(output, Token))) == (thought[cut:], "w0 w1 ")


def test_disabled_reasoning_is_not_played() -> None:
    for output_format in (OutputFormat(effort="none"), OutputFormat(template={"enable_thinking": False})):
        outputs = scripted(tokens=1, reasoning=3).generate(
            PROMPT, prefix="", sampling=Sampling(9), cancelled=lambda: False, output_format=output_format
        )
        assert next(iter(outputs)) == Token("w0 ", 1)


def test_a_script_is_as_long_as_the_request_requires() -> None:
    assert len(outputs_of(scripted(tokens=2), Sampling(50, min_tokens=5))) == 6
    assert len(outputs_of(scripted(tokens=2), Sampling(9, ignore_eos=True))) == 10
    # Continued after one word, with what is left of the minimum
    assert len(outputs_of(scripted(tokens=2), Sampling(50, min_tokens=4), prefix="w0 ")) == 5


def test_the_tokens_of_a_script_have_the_log_probability_0() -> None:
    first, second, _ = outputs_of(scripted(tokens=2), Sampling(9, top_logprobs=1))
    assert first == Token("w0 ", 1, (TokenLogprob("w0 ", 0.0, top=(TokenLogprob("w0 ", 0.0),)),))
    assert isinstance(second, Token)
    assert [entry.token for entry in second.logprobs] == ["w1 "]
