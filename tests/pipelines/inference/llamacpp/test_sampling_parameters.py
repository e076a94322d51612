"""Each parameter of sampling changes what the bundled model generates."""

from dataclasses import replace

import pytest

from pipelines.inference.engine import Finish, Message, Sampling, Token, TokenLogprob
from pipelines.inference.llamacpp.engine import LlamaCppEngine

PROMPT = [Message("user", "Say hello in one word.")]
GREEDY = Sampling(max_output_tokens=24, temperature=0)

#: So hot that the model's own order of tokens hardly matters, unless others are excluded first.
HOT = Sampling(max_output_tokens=8, temperature=2.0, top_p=1.0, seed=7)

#: The model computes as long as the machine's other work makes it.
pytestmark = pytest.mark.timeout(600)


def generate(engine: LlamaCppEngine, sampling: Sampling, prefix: str = "") -> tuple[list[Token], Finish]:
    outputs = engine.generate(PROMPT, prefix=prefix, sampling=sampling, cancelled=lambda: False)
    *tokens, finish = outputs
    assert isinstance(finish, Finish)
    texts = [token for token in tokens if isinstance(token, Token)]
    assert finish.generated_tokens == sum(token.count for token in texts)
    return texts, finish


def text(engine: LlamaCppEngine, sampling: Sampling, prefix: str = "") -> str:
    return "".join(token.text for token in generate(engine, sampling, prefix)[0])


def logprobs(tokens: list[Token]) -> list[TokenLogprob]:
    return [entry for token in tokens for entry in token.logprobs]


def token_number(engine: LlamaCppEngine, token: str) -> int:
    body = {"content": token, "add_special": False}
    [number] = engine._loopback.request("POST", "/tokenize", body)["tokens"]
    return int(number)


def test_a_token_with_a_bias_is_forced_or_forbidden(engine: LlamaCppEngine) -> None:
    # Given the first token of the answer
    first = generate(engine, replace(GREEDY, max_output_tokens=1))[0][0].text
    # When it is forbidden, and another one is forced
    forbidden = replace(GREEDY, logit_bias=((token_number(engine, first), -100),))
    forced = replace(GREEDY, max_output_tokens=3, logit_bias=((token_number(engine, " the"), 100),))
    # Then it is not generated, and only the other one is
    assert not text(engine, forbidden).startswith(first)
    assert text(engine, forced) == " the the the"


def test_penalties_change_a_text_that_repeats_itself(engine: LlamaCppEngine) -> None:
    # Given an answer that goes on with the repetition that it began with
    prefix, sampling = "the cat the cat the cat the cat", replace(GREEDY, max_output_tokens=6, ignore_eos=True)
    repeated = text(engine, sampling, prefix)
    assert "the cat" in repeated
    # Then each penalty ends it, and none of 0 does
    for penalty in ("presence_penalty", "frequency_penalty"):
        assert "the cat" not in text(engine, replace(sampling, **{penalty: 2.0}), prefix)
        assert text(engine, replace(sampling, **{penalty: 0.0}), prefix) == repeated
    assert "the cat" not in text(engine, replace(sampling, repetition_penalty=5.0), prefix)


@pytest.mark.parametrize("limit", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 0.0}])
def test_limits_to_the_most_likely_token_are_greedy_at_any_temperature(
    engine: LlamaCppEngine, limit: dict[str, float]
) -> None:
    greedy = text(engine, replace(GREEDY, max_output_tokens=8))
    assert text(engine, replace(HOT, top_k=0, min_p=0.0)) != greedy
    assert text(engine, replace(HOT, **limit)) == greedy


def test_typical_sampling_leaves_only_the_most_typical_token(engine: LlamaCppEngine) -> None:
    texts = {text(engine, replace(HOT, min_p=0.0, typical_p=0.001, seed=seed)) for seed in range(3)}
    assert len(texts) == 1
    assert len({text(engine, replace(HOT, min_p=0.0, seed=seed)) for seed in range(3)}) == 3


def test_an_answer_has_its_minimum_of_tokens_and_may_end_after_it(engine: LlamaCppEngine) -> None:
    # Given an answer that ends by itself
    whole, finish = generate(engine, replace(GREEDY, max_output_tokens=200))
    assert finish.reason == "stop"
    # When it must have more tokens
    least = finish.generated_tokens + 7
    longer, end = generate(engine, replace(GREEDY, max_output_tokens=200, min_tokens=least))
    # Then it begins as before, has them, and ends by itself later
    assert "".join(token.text for token in longer).startswith("".join(token.text for token in whole))
    assert end.generated_tokens >= least
    assert end.prompt_tokens == finish.prompt_tokens


def test_a_minimum_beyond_the_limit_of_tokens_ends_at_the_limit(engine: LlamaCppEngine) -> None:
    _, finish = generate(engine, replace(GREEDY, max_output_tokens=40, min_tokens=90))
    assert (finish.reason, finish.generated_tokens) == ("length", 40)


def test_an_answer_that_ignores_its_end_reaches_the_limit_of_tokens(engine: LlamaCppEngine) -> None:
    assert generate(engine, replace(GREEDY, max_output_tokens=200))[1].reason == "stop"
    _, finish = generate(engine, replace(GREEDY, max_output_tokens=60, ignore_eos=True))
    assert (finish.reason, finish.generated_tokens) == ("length", 60)


def test_each_token_has_its_log_probability_and_the_likeliest_ones(engine: LlamaCppEngine) -> None:
    tokens, finish = generate(engine, replace(GREEDY, max_output_tokens=12, top_logprobs=3))
    entries = logprobs(tokens)
    # A greedy answer consists of the most likely tokens.
    assert "".join(entry.token for entry in entries) == "".join(token.text for token in tokens)
    assert len(entries) == finish.generated_tokens
    for entry in entries:
        assert entry.logprob <= 0
        assert entry.top[0].token == entry.token
        assert len(entry.top) == 3
        assert sorted((other.logprob for other in entry.top), reverse=True) == [other.logprob for other in entry.top]


def test_no_log_probabilities_without_asking_and_no_alternatives_with_0(engine: LlamaCppEngine) -> None:
    assert logprobs(generate(engine, GREEDY)[0]) == []
    entries = logprobs(generate(engine, replace(GREEDY, max_output_tokens=3, top_logprobs=0))[0])
    assert [entry.top for entry in entries] == [(), (), ()]


def test_text_held_back_for_a_stop_text_keeps_its_log_probabilities(engine: LlamaCppEngine) -> None:
    # Given an answer, and a stop text that begins like a part of it but does not occur
    plain = logprobs(generate(engine, replace(GREEDY, max_output_tokens=8, top_logprobs=0))[0])
    false_start = plain[1].token + plain[2].token + "zzz"
    # When the part is held back
    tokens, _ = generate(engine, replace(GREEDY, max_output_tokens=8, top_logprobs=0, stop=(false_start,)))
    # Then all tokens have their log probabilities, in order
    assert [entry.token for entry in logprobs(tokens)] == [entry.token for entry in plain]
    # And a stop text that occurs has none
    stop = plain[3].token
    stopped, finish = generate(engine, replace(GREEDY, max_output_tokens=8, top_logprobs=0, stop=(stop,)))
    assert finish.reason == "stop"
    assert [entry.token for entry in logprobs(stopped)] == [entry.token for entry in plain[:3]]


def test_log_probabilities_of_a_continued_answer_are_those_of_the_whole(engine: LlamaCppEngine) -> None:
    # Given an answer, and its beginning as another attempt gets it
    whole = logprobs(generate(engine, replace(GREEDY, max_output_tokens=10, top_logprobs=0))[0])
    prefix = "".join(entry.token for entry in whole[:4])
    # When the rest is generated
    rest = logprobs(generate(engine, replace(GREEDY, max_output_tokens=6, top_logprobs=0), prefix)[0])
    # Then its tokens have the same log probabilities, up to the rounding of other batches
    assert [entry.token for entry in rest] == [entry.token for entry in whole[4:]]
    assert [entry.logprob for entry in rest] == pytest.approx([entry.logprob for entry in whole[4:]], abs=0.05)
