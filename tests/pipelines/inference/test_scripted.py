"""The scripted engine: the same answer whatever happens to it."""

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.settings import Script, Settings
from pipelines.inference.engine import EngineError, Finish, Message, Sampling, Token
from pipelines.inference.scripted import Scripted

PROMPT = [Message("system", "be kind"), Message("user", "hello there")]


def scripted(**script: object) -> Scripted:
    return Scripted(Settings(engine="scripted", script=Script.model_validate(script)))


def whole(tokens: int) -> str:
    return "".join(f"w{index} " for index in range(tokens))


def play(
    engine: Scripted,
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
