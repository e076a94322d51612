"""Given other people's clients, unmodified, with base URL and key, then they talk with the real bundled model.

OpenAI's own, LangChain's `ChatOpenAI` and the `llm` command each hold a conversation, stream, call a function and get
JSON by a schema. What a model of this size says is no matter; that it comes whole and in form is.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

from bench.harness.sse import scripted_text
from tests.journeys.stack import ON_REDIS, Installation, User

pytestmark = [ON_REDIS, pytest.mark.timeout(300)]


class Sighting(BaseModel):
    """What somebody has seen."""

    animal: str
    count: int


class Weather(BaseModel):
    """Tells the weather of a city."""

    city: str


@pytest.fixture(scope="module")
def talking(installation: Installation) -> Iterator[Installation]:
    """An installation with the real models behind it."""
    installation.start_web("web-a")
    installation.start_scheduler()
    installation.start_worker("", "inference", "memory", engine="llamacpp")
    yield installation
    installation.kill_workers()


@pytest.fixture(scope="module")
def address(talking: Installation) -> str:
    """Where the API answers."""
    return f"{talking.addresses()[0]}/v1"


@pytest.fixture(scope="module")
def key(talking: Installation) -> str:
    """An API key for inference and reading."""
    return new_key(talking)


def new_key(talking: Installation) -> str:
    """The key of somebody who has said nothing yet."""
    user = User(talking)
    made = user.request("POST", "/v1/api_keys", json={"name": "clients", "scopes": ["inference", "read"]})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


@pytest.fixture
def client(address: str, key: str) -> Iterator[OpenAI]:
    """The official client."""
    with OpenAI(base_url=address, api_key=key, timeout=120, max_retries=0) as client:
        yield client


def test_openai_parses_what_a_schema_holds_the_model_to(client: OpenAI):
    completion = client.chat.completions.parse(
        model="default",
        messages=[{"role": "user", "content": "I have seen three cats."}],
        response_format=Sighting,
        temperature=0,
        max_tokens=100,
    )

    assert isinstance(completion.choices[0].message.parsed, Sighting)


def test_openai_calls_a_function_and_goes_on_with_its_answer(client: OpenAI):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    tools = [pydantic_function_tool(Weather)]
    with client.chat.completions.stream(
        model="default", messages=messages, tools=tools, tool_choice="required", temperature=0, max_tokens=100
    ) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        asked = stream.get_final_completion().choices[0]
    (call,) = asked.message.tool_calls
    messages += [asked.message, {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    told = client.chat.completions.create(
        model="default", messages=messages, tools=tools, tool_choice="none", temperature=0, max_tokens=30
    )

    assert (asked.finish_reason, call.function.name) == ("tool_calls", "Weather")
    assert deltas
    assert isinstance(call.function.parsed_arguments, Weather)
    assert told.choices[0].message.content


@pytest.fixture
def chain(address: str, key: str) -> ChatOpenAI:
    """LangChain's."""
    return ChatOpenAI(model="default", base_url=address, api_key=key, temperature=0, max_tokens=60, timeout=120)


def test_langchain_holds_a_conversation_and_streams(chain: ChatOpenAI):
    said = [SystemMessage("Answer briefly."), HumanMessage("Name a colour.")]
    first = chain.invoke(said)
    pieces = list(chain.stream([*said, first, HumanMessage("Another one?")]))

    assert isinstance(first, AIMessage)
    assert first.content
    assert first.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in pieces)
    assert len(pieces) > 2


def test_langchain_calls_a_function(chain: ChatOpenAI):
    question = HumanMessage("What is the weather in Paris?")
    asked = chain.bind_tools([Weather], tool_choice="Weather").invoke([question])
    (call,) = asked.tool_calls
    told = chain.bind_tools([Weather], tool_choice="none").invoke(
        [question, asked, ToolMessage("It rains.", tool_call_id=call["id"])]
    )

    assert (call["name"], set(call["args"])) == ("Weather", {"city"})
    assert told.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_json_by_schema(chain: ChatOpenAI, method: str):
    seen = chain.with_structured_output(Sighting, method=method).invoke("I have seen three cats.")

    assert isinstance(seen, Sighting)


def test_langchain_embeds(address: str, key: str):
    embedder = OpenAIEmbeddings(
        model="all-minilm-l6-v2", base_url=address, api_key=key, check_embedding_ctx_length=False
    )

    assert [len(vector) for vector in embedder.embed_documents(["a cat", "a dog"])] == [384, 384]


class Llm:
    """The `llm` command with a folder of its own."""

    def __init__(self, folder: Path, address: str, key: str) -> None:
        (folder / "extra-openai-models.yaml").write_text(
            f"- model_id: sangha\n  model_name: default\n  api_base: {address}\n  api_key_name: sangha\n"
            "  supports_schema: true\n  supports_tools: true\n"
        )
        # No plugins: the package of the bundled model is one, and lacks what it would run on.
        self._environment = {**os.environ, "LLM_USER_PATH": str(folder), "OPENAI_API_KEY": key, "LLM_LOAD_PLUGINS": ""}

    def __call__(self, *arguments: str) -> str:
        """What it prints."""
        command = [str(Path(sys.executable).parent / "llm"), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, *arguments: str, temperature: str = "0") -> str:
        """What the model says."""
        return self("prompt", "-m", "sangha", "-o", "temperature", temperature, "-o", "max_tokens", "60", *arguments)


@pytest.fixture
def llm(tmp_path: Path, address: str, talking: Installation) -> Llm:
    """The command line, of somebody to whom nothing is recalled."""
    return Llm(tmp_path, address, new_key(talking))


def test_llm_holds_a_conversation_streamed_and_not(llm: Llm):
    assert llm.ask("Name a colour.").strip()
    assert llm.ask("-c", "--no-stream", "Another one?").strip()
    assert len(json.loads(llm("logs", "--json", "-n", "2"))) == 2


def test_llm_gets_json_by_schema(llm: Llm):
    seen = json.loads(llm.ask("--schema", "animal, count int", "I have seen three cats."))

    assert set(seen) == {"animal", "count"}
    assert isinstance(seen["count"], int)


def test_llm_calls_a_function(llm: Llm):
    """llm leaves the choice to the model. One of this size seldom makes it: it is asked in ways until it does."""
    weather = "def weather(city: str) -> str:\n    'Tells the weather of a city.'\n    return 'It rains in ' + city"
    questions = ["Please call weather.", "Call weather.", "Please call the function weather.", "Weather, please."]

    def results() -> list[str]:
        return [
            found["output"] for row in json.loads(llm("logs", "--json", "-n", "0")) for found in row["tool_results"]
        ]

    for seed, question in enumerate(questions * 4):
        temperature = "0.8" if seed >= len(questions) else "0"
        llm.ask("--functions", weather, "-o", "seed", str(seed), question, temperature=temperature)
        if results():
            break

    assert results()
    assert results()[0].startswith("It rains in")


def test_a_stream_survives_its_worker(talking: Installation):
    """Last, for it kills the workers: a chat stream tells the whole answer, once."""
    talking.kill_workers()
    user = User(talking)
    runner = talking.start_worker("tokens=60,rate=60", slots=1)
    client = OpenAI(base_url=f"{talking.addresses()[0]}/v1", api_key=user.token, timeout=60, max_retries=0)
    text, killed = "", False
    for chunk in client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "hello"}], stream=True
    ):
        text += chunk.choices[0].delta.content or ""
        if not killed and "w10 " in text:
            runner.kill()
            talking.launch_worker("tokens=60,rate=0", slots=1)
            talking.release_jobs(runner)
            killed = True

    assert killed
    assert text == scripted_text(60)
