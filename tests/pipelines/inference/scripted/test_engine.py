"""The scripted engine: the same answer whatever happens to it."""

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.platform.errors import PermanentFailure
from models.platform.settings import Script, Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.scripted.engine import ScriptedEngine

PROMPT = [Message("system", "be kind"), Message("user", "hello there")]


def scripted(**script: object) -> ScriptedEngine:
    return ScriptedEngine(Settings(engine="scripted", script=Script.model_validate(script)))


def whole(tokens: int) -> str:
    return "".join(f"w{index} " for index in range(tokens))


def play(
    engine: ScriptedEngine,
    prefix: str = "",
    most: int = 1000,
    cancelled: Callable[[], bool] = lambda: False,
    prompt: list[Message] = PROMPT,
) -> tuple[str, Finish]:
    items = list(engine.generate(prompt, prefix=prefix, sampling=Sampling(most), cancelled=cancelled))
    tokens = [item for item in items if isinstance(item, Token)]
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(token.count for token in tokens)
    return "".join(token.text for token in tokens), finish


def test_the_answer_is_the_script() -> None:
    assert play(scripted(tokens=3)) == ("w0 w1 w2 ", Finish("stop", 4, 0, 3))


@given(tokens=st.integers(0, 120), data=st.data())
def test_a_prefix_cut_anywhere_is_continued_to_the_letter(tokens: int, data: st.DataObject) -> None:
    # Given an answer cut at any character
    text = whole(tokens)
    cut = data.draw(st.integers(0, len(text)))
    # When it is continued
    rest, finish = play(scripted(tokens=tokens), text[:cut])
    # Then nothing is lost or repeated, and a token cut in two counts once more
    assert text[:cut] + rest == text
    assert finish == Finish("stop", 4, 0, tokens - text[:cut].count(" "))


@given(tokens=st.integers(0, 30), most=st.integers(0, 40), begun=st.integers(0, 30))
def test_the_limit_is_for_one_call(tokens: int, most: int, begun: int) -> None:
    begun = min(begun, tokens)
    rest, finish = play(scripted(tokens=tokens), whole(begun), most)
    assert whole(begun) + rest == whole(min(tokens, begun + most))
    assert finish.reason == ("length" if begun + most < tokens else "stop")


def test_one_that_restarts_ignores_the_prefix() -> None:
    engine = scripted(tokens=2, restarts=1)
    assert not engine.continues
    assert play(engine, "w0 ")[0] == "w0 w1 "


def test_the_rate_is_kept() -> None:
    began = time.monotonic()
    play(scripted(tokens=11, rate=100))
    assert 0.1 <= time.monotonic() - began < 1


def test_it_stops_between_two_tokens_when_cancelled() -> None:
    looks = itertools.count()
    text, finish = play(scripted(tokens=9), cancelled=lambda: next(looks) == 3)
    assert (text, finish) == ("w0 w1 w2 ", Finish("cancelled", 4, 0, 3))


def test_a_slow_one_stops_while_it_waits() -> None:
    looks = itertools.count()
    text, finish = play(scripted(tokens=2, rate=0.001), cancelled=lambda: next(looks) == 3)
    assert (text, finish.reason) == ("w0 ", "cancelled")


def test_a_failure_strikes_the_first_attempt_and_not_the_one_that_goes_on() -> None:
    # Given a script that fails before its third token
    engine = scripted(tokens=5, fail_at=2)
    items = engine.generate(PROMPT, prefix="", sampling=Sampling(9), cancelled=lambda: False)
    read = [next(items), next(items)]
    with pytest.raises(EngineError, match="before token 2"):
        next(items)
    # When the retry goes on where it failed, it comes through
    prefix = "".join(token.text for token in read if isinstance(token, Token))
    assert prefix + play(engine, prefix)[0] == whole(5)
    # But one that lost a token on the way is struck again
    with pytest.raises(EngineError):
        play(engine, "w0 ")


def test_a_failure_before_the_first_token_strikes_every_attempt() -> None:
    for _ in range(2):
        with pytest.raises(EngineError):
            play(scripted(fail_at=0))


def test_a_hang_lasts_until_it_is_cancelled() -> None:
    looks = itertools.count()
    assert play(scripted(tokens=5, hang_at=1), cancelled=lambda: next(looks) > 5)[1] == Finish("cancelled", 4, 0, 1)


@pytest.mark.parametrize(("last", "strikes"), [("please break now", True), ("hello", False)])
def test_a_trigger_is_looked_for_in_the_last_user_message(last: str, strikes: bool) -> None:
    prompt = [Message("user", "do not break"), Message("assistant", "break"), Message("user", last)]
    engine = scripted(tokens=2, fail_at=1, trigger="break")
    if strikes:
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
    said: str = "hello",
    prefix: str = "",
    calls: int = 0,
    **sampling: object,
) -> tuple[str, list[tuple[str, str]], Finish]:
    """Text, calls and end of an answer in a form."""
    made = [ToolCall(str(number), "weather", "{}") for number in range(calls)]
    items = list(
        engine.generate(
            [Message("user", said)],
            prefix=prefix,
            sampling=Sampling(**{"max_output_tokens": 99, **sampling}),  # type: ignore[arg-type]
            cancelled=lambda: False,
            output_format=output_format,
            calls=made,
        )
    )
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(item.count for item in items if not isinstance(item, Finish))
    told = [(item.name, item.arguments) for item in items if isinstance(item, GeneratedCall)]
    return "".join(item.text for item in items if isinstance(item, Token)), told, finish


def test_it_calls_where_it_must_and_where_it_is_asked_to() -> None:
    engine, both = scripted(tokens=2, calls=2, preface=1), (WEATHER, NOW)
    call = ("weather", '{"city":""}')
    assert answer(engine, OutputFormat(both, "required"))[:2] == ("", [call, call])
    assert answer(engine, OutputFormat(both, "required", parallel=False))[:2] == ("", [call])
    assert answer(engine, OutputFormat(both, ("function", "now")))[:2] == ("", [("now", "{}")])
    assert answer(engine, OutputFormat(both), "please call now")[:2] == ("w0 ", [("now", "{}"), ("now", "{}")])
    assert answer(engine, OutputFormat(both))[:2] == ("w0 w1 ", [])
    assert answer(engine, OutputFormat(both, "none"), "call now")[:2] == ("w0 w1 ", [])


def test_a_result_is_answered_in_words() -> None:
    said = [Message("user", "call now"), Message("assistant", "", (ToolCall("1", "now", "{}"),))]
    prompt = [*said, Message("tool", "noon", call_id="1")]
    items = scripted(tokens=1).generate(
        prompt, prefix="", sampling=Sampling(9), cancelled=lambda: False, output_format=OutputFormat((NOW,))
    )
    assert next(items) == Token("w0 ", 1)


def test_it_goes_on_after_calls_that_were_made_and_ends_at_its_limit() -> None:
    engine, output_format = scripted(calls=3, preface=1), OutputFormat((WEATHER,))
    assert len(answer(engine, output_format, "call weather", "w0 ", 1)[1]) == 2
    assert answer(engine, output_format, "call weather", "w0 ", 3)[1] == []
    text, calls, finish = answer(engine, output_format, "call weather", max_output_tokens=2)
    assert (text, len(calls), finish.reason) == ("w0 ", 1, "length")


@given(st.data())
def test_json_by_a_schema_is_continued_to_the_letter(data: st.DataObject) -> None:
    output_format = OutputFormat(
        schema={"type": "object", "properties": {"a b": {"enum": ["x y"]}}, "required": ["a b"]}
    )
    whole, _, finish = answer(scripted(), output_format)
    assert (whole, finish.reason) == ('{"a b":"x y"}', "stop")
    cut = data.draw(st.integers(0, len(whole)))
    assert whole[:cut] + answer(scripted(), output_format, prefix=whole[:cut])[0] == whole


def test_stop_texts_end_it_also_where_they_span_tokens() -> None:
    text, _, finish = answer(scripted(tokens=9), PLAIN_TEXT, stop=("2 w3", "never"))
    assert (text, finish) == ("w0 w1 w", Finish("stop", 1, 0, 3))
    assert answer(scripted(tokens=2), PLAIN_TEXT, stop=("w1 w",))[0] == "w0 w1 "


def test_a_schema_that_has_no_value_is_a_permanent_failure() -> None:
    with pytest.raises(PermanentFailure):
        answer(scripted(), OutputFormat(schema={"type": "foo"}))
