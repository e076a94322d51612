"""The engine `openai` through OpenAI's responses API: requests, text, reasoning, calls, usage and ends."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.engine import (
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    ReasoningToken,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.openai.endpoint_errors import EndpointError
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.endpoint import Endpoint, ReceivedRequest, ends_stream_after
from tests.pipelines.inference.openai.generation import KEY, PROMPT, WEATHER, engine_of, generate

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 3},
}


@pytest.fixture
def engine(endpoint: Endpoint) -> Iterator[OpenAIEngine]:
    upstream = Upstream("test", endpoint.url, ("big",), KEY, api="responses")
    engine = engine_of(Settings(engine="openai", upstreams=(upstream,), slots=2, context=900))
    yield engine
    engine.close()


def event(type_: str, **fields: Any) -> bytes:
    return b"event: " + type_.encode() + b"\ndata: " + orjson.dumps({"type": type_, **fields}) + b"\n\n"


def delta(text: str) -> bytes:
    return event("response.output_text.delta", item_id="m", output_index=0, content_index=0, delta=text)


def end(status: str = "completed", **fields: Any) -> bytes:
    response = {"object": "response", "status": status, "output": [], "usage": USAGE, **fields}
    return event(f"response.{status}", response=response)


def answers_with_events(*events: bytes) -> Callable[[ReceivedRequest], None]:
    return ends_stream_after(event("response.created", response={"status": "in_progress"}), *events)


def test_text_reasoning_and_usage(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    reasoning = event("response.reasoning_summary_text.delta", item_id="r", output_index=0, summary_index=0, delta="hm")
    endpoint.handlers += [answers_with_events(reasoning, delta("a"), delta("b"), end())]

    outputs = list(generate(engine))

    # The endpoint reports six tokens, of which three are reasoning: the chunks contained one of it and two of the text
    assert outputs == [
        ReasoningToken("hm", 1), Token("a", 1), Token("b", 1), Token("", 3), Finish("stop", 9, 4, 6, 2),
    ]  # fmt: skip


def test_the_request_has_items_tools_and_a_format(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with_events(delta('{"a": 1}'), end())]
    assistant = Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Ulm"}'),))
    prompt = [*PROMPT, assistant, Message("tool", "rain", call_id="c1")]
    output_format = OutputFormat((WEATHER,), parallel=False, schema={"type": "object"}, effort="low")

    list(generate(engine, output_format, prompt, temperature=0, top_p=0.5))

    request = endpoint.requests[0]
    assert request.path == "/v1/responses"
    function = {"type": "function", "name": "weather", "description": "of a city",
                "parameters": dict(WEATHER.parameters), "strict": False}  # fmt: skip
    assert request.body == {
        "model": "big",
        "input": [
            {"type": "message", "role": "system", "content": "be kind"},
            {"type": "message", "role": "user", "content": "hello there"},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Ulm"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
        "max_output_tokens": 50,
        "temperature": 0,
        "top_p": 0.5,
        "reasoning": {"effort": "low"},
        "tools": [function],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}},
        "store": False,
        "stream": True,
    }


def test_calls_are_yielded_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    call = {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "weather", "arguments": '{"city": "Ulm"}'}
    endpoint.handlers += [
        answers_with_events(event("response.output_item.done", output_index=0, item=call), end(output=[call]))
    ]

    outputs = list(generate(engine, OutputFormat((WEATHER,))))

    assert outputs == [GeneratedCall("weather", '{"city": "Ulm"}', 6), Finish("stop", 9, 4, 6, 3)]


@pytest.mark.parametrize(
    ("reason", "ends"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "stop")]
)
def test_an_incomplete_response_has_its_reason(
    endpoint: Endpoint, engine: OpenAIEngine, reason: str | None, ends: str
) -> None:
    details = {"reason": reason} if reason else None
    endpoint.handlers += [answers_with_events(delta("a"), end("incomplete", incomplete_details=details))]

    *_, finish = generate(engine)

    assert isinstance(finish, Finish)
    assert finish.reason == ends


def test_a_stop_text_ends_the_answer_although_the_api_has_none(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [
        answers_with_events(delta("one E"), delta("ND two"), end()),
        answers_with_events(delta("one E"), end(usage=None)),
    ]

    outputs = list(generate(engine, stop=("END",)))
    others = list(generate(engine, stop=("END",)))

    assert outputs[:2] == [Token("one ", 1), Token("", 1)]
    assert isinstance(outputs[2], Finish)
    assert (outputs[2].reason, outputs[2].generated_tokens) == ("stop", 2)
    assert "".join(output.text for output in others if isinstance(output, Token)) == "one E"


@pytest.mark.parametrize(
    "handle",
    [
        answers_with_events(delta("a"), event("error", code="server_error", message="no memory")),
        answers_with_events(delta("a"), end("failed", error={"code": "server_error", "message": "no memory"})),
    ],
)
def test_a_failure_in_the_stream_is_an_error(
    endpoint: Endpoint, engine: OpenAIEngine, handle: Callable[[ReceivedRequest], None]
) -> None:
    endpoint.handlers += [handle]

    with pytest.raises(EndpointError, match="no memory") as caught:
        list(generate(engine))

    assert (caught.value.kind, caught.value.accepted) == ("overloaded", True)


def test_a_stream_without_an_end_is_dropped(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with_events(delta("a"))]

    with pytest.raises(EndpointError, match="without a finish reason"):
        list(generate(engine))


def test_an_answer_that_is_not_the_required_json_fails(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with_events(delta("no JSON"), end())]

    with pytest.raises(PermanentFailure, match="not JSON"):
        list(generate(engine, OutputFormat(schema={})))


def test_a_response_that_is_not_streamed(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "whole"}]}
    body = orjson.dumps({"object": "response", "status": "completed", "output": [message], "usage": USAGE})

    def respond(request: ReceivedRequest) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    endpoint.handlers += [respond]

    assert next(iter(generate(engine))) == Token("whole", 1)


def test_a_call_of_no_arguments_has_an_empty_schema(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with_events(delta("a"), end())]
    options = OutputFormat((Tool("now", "", {}),))

    list(engine.generate(PROMPT, prefix="", sampling=Sampling(9), cancelled=lambda: False, output_format=options))

    assert endpoint.requests[0].body["tools"][0]["parameters"] == {"type": "object", "properties": {}}
