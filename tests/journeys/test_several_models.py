"""Two local models in two workers: each answers to its name, also while the other is down or becomes the default."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from bench.harness.waiting import wait_until
from tests.journeys.stack import AccountOwner, Installation, openai_client

#: Answers of the default model, `scripted`, and of the other one.
SMALL, LARGE = "w0 w1 ", "w0 w1 w2 w3 "


@pytest.fixture
def client(stack: Installation) -> Iterator[OpenAI]:
    """The official client with a new account."""
    with openai_client(stack, AccountOwner(stack)) as client:
        yield client


def start_small(stack: Installation, **changes: str):
    return stack.start_worker("tokens=2,rate=0", **changes)


def start_large(stack: Installation, default: str = "scripted"):
    return stack.start_worker("tokens=4,rate=0", model_name="org/large:8b", default_model=default)


def answer(client: OpenAI, model: str) -> str:
    return client.responses.create(model=model, input="hello", timeout=30).output_text


def listed(client: OpenAI) -> dict[str, str]:
    return {model.id: model.status for model in client.models.list()}  # type: ignore[attr-defined]


def test_each_model_answers_to_its_name(stack, client):
    start_small(stack)
    start_large(stack)
    wait_until(lambda: listed(client).get("org/large:8b") == "available", 10)

    assert [answer(client, model) for model in ("scripted", "org/large:8b", "default")] == [SMALL, LARGE, SMALL]
    chat = client.chat.completions.create(model="org/large:8b", messages=[{"role": "user", "content": "hello"}])
    assert (chat.model, chat.choices[0].message.content) == ("org/large:8b", LARGE)
    assert client.responses.input_tokens.count(model="org/large:8b", input="one two").input_tokens == 2
    with pytest.raises(openai.NotFoundError, match=r"'large' does not exist. Available models are: .*'org/large:8b'"):
        answer(client, "large")


def test_turns_wait_for_a_model_whose_worker_is_down_while_others_go_on(stack, client):
    # Given two models, one of whose workers is killed
    start_small(stack)
    large = start_large(stack)
    wait_until(lambda: listed(client).get("org/large:8b") == "available", 10)
    stack.remove(large)
    # When both are asked
    waiting = client.responses.create(model="org/large:8b", input="hello", background=True)
    # Then one answers, and the other waits for its worker
    assert answer(client, "scripted") == SMALL
    assert client.responses.retrieve(waiting.id).status == "queued"
    start_large(stack)
    wait_until(lambda: client.responses.retrieve(waiting.id).status == "completed", 30)
    assert client.responses.retrieve(waiting.id).output_text == LARGE


def test_queued_turns_of_the_previous_default_model_are_answered_by_it(stack, client):
    # Given turns of both models that wait without a worker
    large, small = start_large(stack), start_small(stack)
    wait_until(lambda: listed(client).get("org/large:8b") == "available", 10)
    stack.remove(large)
    stack.remove(small)
    models = {"scripted": SMALL, "org/large:8b": LARGE}
    waiting = {model: client.responses.create(model=model, input="hello", background=True).id for model in models}
    # When the workers start with another default model
    start_large(stack, default="org/large:8b")
    start_small(stack, default_model="org/large:8b")
    # Then each model answers its own
    for model, text in models.items():
        wait_until(lambda model=model: client.responses.retrieve(waiting[model]).status == "completed", 30)
        assert client.responses.retrieve(waiting[model]).output_text == text
