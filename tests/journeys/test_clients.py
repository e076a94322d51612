"""OpenAI's client works with the bundled model, given a base URL and a key.

It calls a function and gets JSON by a schema. The tests check the form of the answers, not what a model of this size
says. `clients/` tries this and other clients with the scripted engine.
"""

from collections.abc import Iterator

import pytest
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

from bench.harness.sse import scripted_text
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

pytestmark = [ON_REDIS, pytest.mark.timeout(600)]


class Sighting(BaseModel):
    """Animals and their number."""

    animal: str
    count: int


class Weather(BaseModel):
    """Tells the weather of a city."""

    city: str


@pytest.fixture(scope="module")
def bundled_model(installation: Installation) -> Iterator[Installation]:
    """An installation with the bundled models."""
    installation.start_web("web-a")
    installation.start_scheduler()
    installation.start_worker("", "inference", "memory", engine="llamacpp")
    yield installation
    installation.kill_workers()


@pytest.fixture(scope="module")
def address(bundled_model: Installation) -> str:
    """The base URL of the API."""
    return f"{bundled_model.addresses()[0]}/v1"


@pytest.fixture(scope="module")
def key(bundled_model: Installation) -> str:
    """An API key for inference and reading."""
    user = AccountOwner(bundled_model)
    created = user.request("POST", "/v1/api_keys", json={"name": "clients", "scopes": ["inference", "read"]})
    assert created.status_code == 201, created.text
    return str(created.json()["key"])


@pytest.fixture
def client(address: str, key: str) -> Iterator[OpenAI]:
    """The official client."""
    with OpenAI(base_url=address, api_key=key, timeout=120, max_retries=0) as client:
        yield client


def test_openai_parses_structured_output(client: OpenAI):
    completion = client.chat.completions.parse(
        model="default",
        messages=[{"role": "user", "content": "I have seen three cats."}],
        response_format=Sighting,
        temperature=0,
        max_tokens=100,
    )

    assert isinstance(completion.choices[0].message.parsed, Sighting)


def test_openai_calls_a_function_and_sends_its_output(client: OpenAI):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    tools = [pydantic_function_tool(Weather)]
    with client.chat.completions.stream(
        model="default", messages=messages, tools=tools, tool_choice="required", temperature=0, max_tokens=100
    ) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        choice = stream.get_final_completion().choices[0]
    (call,) = choice.message.tool_calls
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    completion = client.chat.completions.create(
        model="default", messages=messages, tools=tools, tool_choice="none", temperature=0, max_tokens=30
    )

    assert (choice.finish_reason, call.function.name) == ("tool_calls", "Weather")
    assert deltas
    assert isinstance(call.function.parsed_arguments, Weather)
    assert completion.choices[0].message.content


def test_chat_stream_survives_a_killed_worker(bundled_model: Installation):
    """Runs last, because it kills the workers."""
    bundled_model.kill_workers()
    user = AccountOwner(bundled_model)
    runner = bundled_model.start_worker("tokens=60,rate=60", slots=1)
    client = OpenAI(base_url=f"{bundled_model.addresses()[0]}/v1", api_key=user.token, timeout=60, max_retries=0)
    text, killed = "", False
    for chunk in client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "hello"}], stream=True
    ):
        text += chunk.choices[0].delta.content or ""
        if not killed and "w10 " in text:
            runner.kill()
            bundled_model.launch_worker("tokens=60,rate=0", slots=1)
            bundled_model.release_jobs(runner)
            killed = True

    assert killed
    assert text == scripted_text(60)
