"""`/v1/completions` with OpenAI's client and a real worker."""

import openai
import pytest
from openai.types import Completion
from pydantic import TypeAdapter

from bench.harness.waiting import wait_until
from tests.web.api_client import assert_error

POOL = "inference"

TEXT = "".join(f"w{index} " for index in range(20))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["x"] * 17}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "suffix": "end"}, "suffix"),
        ({"prompt": "x", "logprobs": 2}, "logprobs"),
        ({"prompt": "x", "n": 9}, "n"),
        ({"prompt": ["x"] * 4, "n": 5}, "n"),
        ({"prompt": "x", "n": 2, "best_of": 3}, "best_of"),
        ({"prompt": "x", "model": "another"}, "model"),
    ],
)
def test_unsupported_parameters_are_rejected_by_name(user, body, param):
    answer = user.request("POST", "/v1/completions", json=body)

    assert answer.status_code in (400, 404)
    assert_error(answer, answer.status_code, param=param)
    assert user.jobs() == []


def test_a_prompt_is_completed_and_deleted(client, user):
    answer = client.completions.with_raw_response.create(model="default", prompt="hello there", max_tokens=100)
    completion = answer.parse()

    TypeAdapter(Completion).validate_python(answer.http_response.json(), strict=True)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in completion.choices] == [(0, TEXT, "stop")]
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 20)
    wait_until(lambda: user.jobs() == [])


def test_without_a_limit_a_completion_has_sixteen_tokens(client):
    completion = client.completions.create(model="default", prompt="hello")

    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (16, "length")


def test_several_prompts_have_their_choices_in_order(client):
    completion = client.completions.create(model="default", prompt=["one", "two"], n=2, echo=True, max_tokens=1)

    assert [(choice.index, choice.text) for choice in completion.choices] == [
        (0, "onew0 "), (1, "onew0 "), (2, "twow0 "), (3, "twow0 "),
    ]  # fmt: skip
    assert completion.usage.completion_tokens == 4


def test_a_stream_has_the_chunks_of_all_choices(client):
    chunks = list(client.completions.create(
        model="default", prompt=["one", "two"], echo=True, stream=True, max_tokens=3,
        stream_options={"include_usage": True},
    ))  # fmt: skip

    pieces = [choice for chunk in chunks for choice in chunk.choices]
    texts = ["".join(piece.text for piece in pieces if piece.index == index) for index in range(2)]
    assert texts == ["onew0 w1 w2 ", "twow0 w1 w2 "]
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["length", "length"]
    assert chunks[-1].usage.completion_tokens == 6
    assert len({chunk.id for chunk in chunks}) == 1


def test_stop_sequences_end_a_completion(client):
    completion = client.completions.create(model="default", prompt="hello", stop=["w3"])

    assert completion.choices[0].text == "w0 w1 w2 "


def test_a_repeated_idempotency_key_returns_the_same_completion(client, user):
    first, second = (
        client.completions.create(model="default", prompt="hello", extra_headers={"Idempotency-Key": "same"})
        for _ in range(2)
    )

    assert first == second
    assert len(user.jobs()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_exceeds_the_context_is_an_error_of_the_prompt(client, user, stream):
    with pytest.raises(openai.APIError) as error:
        list(client.completions.create(model="default", prompt="word " * 5000, stream=stream))

    assert (error.value.code, error.value.param) == ("context_length_exceeded", "prompt")
    wait_until(lambda: user.jobs() == [])  # nobody can read the failed turn later
