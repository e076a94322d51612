"""Two model files in two workers of llama.cpp, and a model of an endpoint: each answers to its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from bench.harness.endpoint.client import scripted_endpoint
from bench.harness.random_models.llama2 import write_llama2
from bench.harness.random_models.llama31 import write_llama31
from bench.harness.waiting import wait_until
from models.platform.upstreams import Upstream
from tests.journeys.stack import AccountOwner, Installation, openai_client

#: The names in requests. The endpoint has a model with the name of a local one, too.
LLAMA, OLDER, REMOTE = "llama", "older", "remote"

#: What the endpoint answers.
REMOTE_TEXT = "w0 w1 w2 "

#: Model → the model and the endpoint that answer.
ANSWERED_BY = {
    LLAMA: (LLAMA, None),
    "default": (LLAMA, None),
    OLDER: (OLDER, None),
    REMOTE: (REMOTE, "cloud"),
    f"cloud/{REMOTE}": (REMOTE, "cloud"),
    f"cloud/{LLAMA}": (LLAMA, "cloud"),
}


@pytest.fixture
def client(stack: Installation, tmp_path: Path) -> Iterator[OpenAI]:
    """The official client with a new account, once all models are served."""
    llama, older = write_llama31(tmp_path / "llama.gguf"), write_llama2(tmp_path / "older.gguf")
    local: dict[str, Any] = {"engine": "llamacpp", "context": 512, "default_model": LLAMA}
    with scripted_endpoint(tokens=3) as endpoint:
        cloud = Upstream("cloud", endpoint.url, (REMOTE, LLAMA), slots=2, residency="any")
        stack.start_worker("", model=str(llama), model_name=LLAMA, **local)
        stack.start_worker("", model=str(older), model_name=OLDER, **local)
        stack.start_worker("", "upstream", upstreams=(cloud,))
        with openai_client(stack, AccountOwner(stack)) as client:
            wait_until(lambda: {LLAMA, OLDER, REMOTE} <= available(client), 20)
            yield client


def available(client: OpenAI) -> set[str]:
    """Return the models that are served."""
    return {model.id for model in client.models.list() if model.status == "available"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ANSWERED_BY)
def test_each_model_answers_to_its_name(client, model):
    # When a model is asked for a few tokens
    stream = client.responses.create(
        model=model,
        input="hello",
        max_output_tokens=4,
        stream=True,
        extra_headers={"X-Sangha-Events": "all"},
    )
    events = {event.type: event for event in stream}

    # Then the engine that has the name answers
    started = events["sangha:engine.started"]
    assert (started.model, getattr(started, "endpoint", None) or None) == ANSWERED_BY[model]
    ended = events.get("response.completed") or events["response.incomplete"]
    assert ended.response.usage.output_tokens in (3, 4)


def test_models_are_listed_with_who_serves_them_and_answer_chat_completions(client):
    owners = {model.id: model.owned_by for model in client.models.list()}
    assert {name: owners.get(name) for name in (LLAMA, OLDER, REMOTE)} == {
        LLAMA: "sangha",
        OLDER: "sangha",
        REMOTE: "cloud",
    }

    # The text of random weights is not known, that of the endpoint is
    answers = {model: complete(client, model) for model in ANSWERED_BY}
    assert {model for model, text in answers.items() if text == REMOTE_TEXT} == {
        model for model, (_, endpoint) in ANSWERED_BY.items() if endpoint
    }


def complete(client: OpenAI, model: str) -> str | None:
    """Return the text of a short completion."""
    messages: Any = [{"role": "user", "content": "hello"}]
    completion = client.chat.completions.create(model=model, messages=messages, max_completion_tokens=4)
    return completion.choices[0].message.content


def test_a_turn_that_may_not_leave_is_refused_at_once_by_a_model_elsewhere(client):
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.responses.create(model=REMOTE, input="hello", extra_body={"residency": "local"})

    assert refused.value.code == "residency"
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(
            model=REMOTE, messages=[{"role": "user", "content": "hello"}], extra_body={"residency": "local"}
        )
