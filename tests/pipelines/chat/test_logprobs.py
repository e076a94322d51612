"""Log probabilities are journalled with their text, and are complete after a crash."""

import pytest

from pipelines.chat.logprobs import logprob_object, with_bytes
from pipelines.chat.prompt import MAX_LOGPROBS
from pipelines.chat.transcript import TEXT_DELTA
from pipelines.inference.engine import Token, TokenLogprob
from tests.pipelines.chat.test_turn import crash_before, events, run

WORDS = [
    Token(f"w{n} ", 1, (TokenLogprob(f"w{n} ", -0.5 * n, top=(TokenLogprob(f"w{n} ", -0.5 * n),)),)) for n in range(4)
]
ASKED = {"logprobs": True, "top_logprobs": 1}


def tokens(entries):
    return [(entry["token"], entry["logprob"]) for entry in entries]


@pytest.mark.parametrize("crash", [None, 0, 1, 3])
def test_each_token_of_an_answer_has_its_log_probability_once(harness, fake_engine, crash):
    # Given an answer with log probabilities, of which a worker journals a part before it crashes
    started = harness.start("hello", **ASKED)
    if crash is not None:
        crash_before(harness, fake_engine(*WORDS), started, crash)
    # When another one generates the rest
    run(harness, fake_engine(*WORDS[crash or 0 :]), started)
    # Then deltas, the end of the text and the item have them in order
    turn_events, expected = events(harness, started), [(f"w{n} ", -0.5 * n) for n in range(4)]
    deltas = [payload for type_, payload in turn_events if type_ == TEXT_DELTA]
    assert tokens(entry for payload in deltas for entry in payload["logprobs"]) == expected
    assert all("".join(entry["token"] for entry in payload["logprobs"]) == payload["delta"] for payload in deltas)
    [done] = [payload for type_, payload in turn_events if type_ == "response.output_text.done"]
    assert tokens(done["logprobs"]) == expected
    part = harness.stored_response(started).output[0]["content"][0]
    assert tokens(part["logprobs"]) == expected
    assert part["logprobs"][1] == {
        "token": "w1 ", "logprob": -0.5, "bytes": [119, 49, 32],
        "top_logprobs": [{"token": "w1 ", "logprob": -0.5, "bytes": [119, 49, 32]}],
    }  # fmt: skip
    # And as many tokens are billed
    assert harness.billed(started)[0][2] == 4


def test_the_sampling_of_a_continued_answer_counts_what_is_there(harness, fake_engine):
    # Given an answer with a minimum of tokens whose worker crashes after three of them
    started = harness.start("hello", min_tokens=10, presence_penalty=0.5, logit_bias={"7": -1.5})
    crash_before(harness, fake_engine(*WORDS), started, 3)
    # When another one continues
    engine = fake_engine("end")
    run(harness, engine, started)
    # Then the rest of the minimum is required, and all else is the same
    [sampling] = engine.samplings
    assert (sampling.min_tokens, sampling.presence_penalty, sampling.logit_bias) == (7, 0.5, ((7, -1.5),))
    assert sampling.top_logprobs is None


def test_an_answer_with_log_probabilities_has_a_bounded_number_of_them(harness, fake_engine):
    engine, started = fake_engine("a ", context=10**6), harness.start("hello", logprobs=True, top_logprobs=19)
    run(harness, engine, started)
    assert (engine.samplings[0].top_logprobs, engine.samplings[0].max_output_tokens) == (19, MAX_LOGPROBS // 20)


def test_a_part_of_a_character_keeps_its_bytes():
    entry = TokenLogprob("\ufffd", -1.0, b"\xf0\x9f", (TokenLogprob("a\0", -0.1),))
    assert logprob_object(entry) == {
        "token": "\ufffd", "logprob": -1.0, "bytes": [240, 159],
        "top_logprobs": [{"token": "a\ufffd", "logprob": -0.1}],
    }  # fmt: skip
    assert with_bytes(logprob_object(entry))["bytes"] == [240, 159]
