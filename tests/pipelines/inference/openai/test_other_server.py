"""The engine `openai` and a server that others wrote agree on both APIs: text, usage, ends, tools and failures."""

from collections.abc import Iterator

import orjson
import pytest

from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.engine import EngineOutput, Finish, OutputFormat, Token
from pipelines.inference.openai.endpoint_errors import EndpointError, EndpointRejection
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.generation import KEY, WEATHER, answer, engine_of, generate
from tests.pipelines.inference.openai.other_server import OtherServer, running_other_server

TEXT = "The Rhine, the Po and the Seine."

#: The tokens that the server counts in PROMPT and in TEXT: a fourth of the characters of each message, rounded down.
PROMPT_TOKENS, TEXT_TOKENS = 1 + 2, len(TEXT) // 4


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    with running_other_server(tmp_path_factory.mktemp("llmock")) as server:
        yield server


@pytest.fixture
def server(process: OtherServer) -> OtherServer:
    """The server, without what earlier tests have scripted and requested."""
    process.reset()
    return process


@pytest.fixture(params=["chat", "responses"])
def engine(request: pytest.FixtureRequest, server: OtherServer) -> Iterator[OpenAIEngine]:
    """An engine for each API of the server."""
    yield from connected(server, request.param)


@pytest.fixture
def chat_engine(server: OtherServer) -> Iterator[OpenAIEngine]:
    yield from connected(server, "chat")


@pytest.fixture
def responses_engine(server: OtherServer) -> Iterator[OpenAIEngine]:
    yield from connected(server, "responses")


def connected(server: OtherServer, api: str) -> Iterator[OpenAIEngine]:
    upstream = Upstream("other", server.url, ("gpt-4o-mini",), KEY, api=api)  # type: ignore[arg-type]
    engine = engine_of(Settings(engine="openai", upstreams=(upstream,), slots=2, context=900))
    yield engine
    engine.close()


def test_text_is_streamed_in_pieces_and_billed_as_the_server_counts(server: OtherServer, engine: OpenAIEngine) -> None:
    server.script("reply", text=TEXT)

    *outputs, finish = generate(engine)

    pieces = [output.text for output in outputs if isinstance(output, Token) and output.text]
    assert len(pieces) == len(TEXT.split())
    assert "".join(pieces) == TEXT
    assert finish == Finish("stop", PROMPT_TOKENS, 0, TEXT_TOKENS)
    assert [(request["stream"], request["status"], request["completed"]) for request in server.requests()] == [
        (True, 200, True)
    ]


def test_answer_that_reached_the_limit_of_tokens_says_so(server: OtherServer, chat_engine: OpenAIEngine) -> None:
    server.script("reply", text=TEXT, finish_reason="length")

    text, _, finish = answer(chat_engine)

    assert (text, finish.reason) == (TEXT, "length")


def test_stop_texts_are_sent_through_chat_completions(server: OtherServer, chat_engine: OpenAIEngine) -> None:
    answer(chat_engine, stop=("Po",))

    (request,) = server.requests()
    assert request["body"]["stop"] == ["Po"]


def test_stop_texts_end_an_answer_of_responses_on_this_side(
    server: OtherServer, responses_engine: OpenAIEngine
) -> None:
    server.script("reply", text=TEXT)

    text, _, finish = answer(responses_engine, stop=("Po",))

    assert (text, finish.reason) == ("The Rhine, the ", "stop")
    assert "stop" not in server.requests()[0]["body"]


def test_call_of_a_tool_whose_arguments_come_in_fragments_is_whole(server: OtherServer, engine: OpenAIEngine) -> None:
    arguments = {"city": "Llanfairpwllgwyngyll", "unit": "celsius"}
    server.script("reply", tool_calls=[{"name": "weather", "arguments": arguments}])

    text, calls, finish = answer(engine, OutputFormat(tools=(WEATHER,)))

    assert (text, finish.reason) == ("", "stop")
    assert [(call.name, orjson.loads(call.arguments)) for call in calls] == [("weather", arguments)]


def test_schema_is_understood(engine: OpenAIEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"river": {"enum": ["Rhine"]}},
        "required": ["river"],
        "additionalProperties": False,
    }

    text, _, _ = answer(engine, OutputFormat(schema=schema))

    assert orjson.loads(text) == {"river": "Rhine"}


@pytest.mark.parametrize(
    ("status", "retry_after", "kind"), [(429, 7.0, "rate_limited"), (503, 3.0, "overloaded"), (500, None, "overloaded")]
)
def test_temporary_error_has_its_kind_and_the_time_to_retry_and_the_next_request_succeeds(
    server: OtherServer, engine: OpenAIEngine, status: int, retry_after: float | None, kind: str
) -> None:
    server.script("fail", status=status, retry_after=retry_after)
    server.script("reply", text=TEXT)

    with pytest.raises(EndpointError, match=str(status)) as failure:
        answer(engine)

    assert (failure.value.kind, failure.value.retry_after) == (kind, retry_after)
    assert answer(engine)[0] == TEXT


@pytest.mark.parametrize(
    ("status", "code", "kind", "ours"),
    [
        (400, "context_length_exceeded", "bad_request", "context_length_exceeded"),
        (401, None, "auth", "server_error"),
        (404, None, "model_not_found", "server_error"),
        (429, "insufficient_quota", "quota", "server_error"),
    ],
)
def test_permanent_error_has_its_kind(
    server: OtherServer, engine: OpenAIEngine, status: int, code: str | None, kind: str, ours: str
) -> None:
    server.script("fail", status=status, code=code)

    with pytest.raises(EndpointRejection) as failure:
        answer(engine)

    assert (failure.value.kind, failure.value.code) == (kind, ours)


@pytest.mark.parametrize(
    ("fault", "kind"), [("disconnect", "dropped"), ("truncate", "dropped"), ("malformed", "invalid_response")]
)
def test_broken_answer_is_no_complete_one(server: OtherServer, engine: OpenAIEngine, fault: str, kind: str) -> None:
    # Given an answer that breaks after its first words: responses begin with four events without text
    server.script("reply", text=TEXT)
    server.script("stream_fault", kind=fault, after_chunks=6)

    outputs: list[EngineOutput] = []
    with pytest.raises(EndpointError) as failure:
        outputs.extend(generate(engine))

    assert failure.value.kind == kind
    received = "".join(output.text for output in outputs if isinstance(output, Token))
    assert TEXT.startswith(received)
    assert 0 < len(received) < len(TEXT)


def test_cancelling_does_not_wait_for_a_stalled_server(server: OtherServer, engine: OpenAIEngine) -> None:
    # Given an answer that stalls for longer than the test may take
    server.script("reply", text=TEXT)
    server.script("stream_fault", kind="stall", after_chunks=6, stall_seconds=600)
    received: list[str] = []

    for output in generate(engine, cancelled=lambda: bool(received)):
        if isinstance(output, Token):
            received.append(output.text)
        else:
            finish = output

    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"
    assert 0 < len("".join(received)) < len(TEXT)
