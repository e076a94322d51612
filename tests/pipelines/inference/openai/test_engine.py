"""The engine `openai` reads answers, counts tokens and is cancelled, with an endpoint over HTTP."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from bench.harness.waiting import wait_until
from pipelines.inference.engine import (
    EngineError,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Token,
)
from pipelines.inference.openai.engine import OpenAIEngine, probe
from tests.pipelines.inference.openai.endpoint import (
    DONE,
    Endpoint,
    ReceivedRequest,
    answers_with,
    calls_with,
    chunk,
    ends_stream_after,
)
from tests.pipelines.inference.openai.generation import (
    PROMPT,
    WEATHER,
    answer,
    generate,
    settings_of,
    wait_for_disconnect,
)


def test_an_answer_is_streamed_and_its_connection_is_reused(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    endpoint.handlers += [
        answers_with("a", "b ", "ö", usage=usage),
        answers_with("c", reason="length"),
        answers_with("d", reason="stop"),
    ]

    assert answer(engine) == ("ab ö", [], Finish("stop", 9, 4, 3))
    assert answer(engine) == ("c", [], Finish("length", engine.count(PROMPT), 0, 1))
    assert answer(engine)[0] == "d"
    assert endpoint.connections == 1
    assert (engine.name, engine.slots, engine.context, engine.continues) == ("big", 2, 900, False)


def test_tokens_beyond_the_text_are_counted_at_the_end(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with("a", "b", usage={"prompt_tokens": 1, "completion_tokens": 7})]

    assert list(generate(engine)) == [Token("a", 1), Token("b", 1), Token("", 5), Finish("stop", 1, 0, 7)]


def test_calls_are_yielded_complete(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    output_format = OutputFormat((WEATHER,), "required")
    complete = GeneratedCall("weather", '{"city": "Ulm"}', 11)
    endpoint.handlers += [calls_with((0, "weather", '{"city"'), (0, "", ': "Ulm"}'), (1, "weather", ""))]
    assert answer(engine, output_format) == (
        "",
        [complete, GeneratedCall("weather", "{}", 1)],
        Finish("stop", 5, 0, 12),
    )
    # Except one that the token limit cuts off
    endpoint.handlers += [calls_with((0, "weather", '{"city": "Ulm"}'), (1, "weather", '{"ci'), reason="length")]
    assert answer(engine, output_format)[1:] == (
        [GeneratedCall("weather", '{"city": "Ulm"}', 12)],
        Finish("length", 5, 0, 12),
    )
    # A call of an unknown function, or without JSON, is the caller's to judge
    for name, arguments in (("whether", "{}"), ("weather", "{")):
        endpoint.handlers += [calls_with((0, name, arguments))]
        assert answer(engine, output_format)[1] == [GeneratedCall(name, arguments, 12)]


def responds_with(body: dict[str, Any], content_type: str = "application/json") -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        data = orjson.dumps(body)
        request.send_response(200)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return handle


def test_an_answer_that_is_not_streamed_is_read(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    message = {"role": "assistant", "content": "Hello.", "tool_calls": None}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    whole = {"object": "chat.completion", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    endpoint.handlers += [responds_with(whole), responds_with(whole, "Application/JSON; charset=utf-8")]
    for _ in range(2):
        assert answer(engine) == ("Hello.", [], Finish("stop", 5, 0, 2))


def test_chunks_are_read_in_pieces_and_several_at_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    whole = b": ping\n\n" + chunk({"content": "a"}) + chunk({"content": "b"}, "stop") + DONE
    endpoint.handlers += [ends_stream_after(*(whole[at : at + 7] for at in range(0, len(whole), 7)))]
    assert answer(engine)[0] == "ab"


@pytest.mark.parametrize("parts_sent", [0, 1, 2])
def test_cancelling_closes_the_connection_while_no_data_arrives(
    endpoint: Endpoint, engine: OpenAIEngine, parts_sent: int
) -> None:
    """Before the response's head, before the first token, and after it."""
    freed, request_received = threading.Event(), threading.Event()

    def handle(request: ReceivedRequest) -> None:
        if parts_sent:
            request.begin_stream()
        if parts_sent == 2:
            request.send(chunk({"content": "a"}))
        request_received.set()
        wait_for_disconnect(request, freed)

    endpoint.handlers += [handle, answers_with("b")]
    polls = iter([False] * 5)
    items = generate(engine, cancelled=lambda: request_received.is_set() and next(polls, True))
    if parts_sent == 2:
        assert next(items) == Token("a", 1)
    start = time.monotonic()
    assert [item.reason for item in items if isinstance(item, Finish)] == ["cancelled"]
    assert freed.wait(10)
    assert time.monotonic() - start < 5  # five polls 20 ms apart; the endpoint itself would wait longer
    assert answer(engine)[0] == "b"


def test_closing_the_iterator_closes_the_connection(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    freed = threading.Event()

    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        request.send(chunk({"content": "a"}))
        wait_for_disconnect(request, freed)

    endpoint.handlers += [handle]
    items = generate(engine)
    assert next(items) == Token("a", 1)
    items.close()  # type: ignore[attr-defined]
    assert freed.wait(5)


def test_an_exception_of_cancelled_propagates_and_closes_the_connection(
    endpoint: Endpoint, engine: OpenAIEngine
) -> None:
    freed = threading.Event()
    endpoint.handlers += [lambda request: wait_for_disconnect(request, freed)]

    def cancelled() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        list(generate(engine, cancelled=cancelled))
    assert freed.wait(5)


def test_a_generation_waits_for_a_slot_and_can_be_cancelled(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        request.send(chunk({"content": "a"}))
        request.disconnects()

    endpoint.handlers += [handle, handle, answers_with("c")]
    running = [generate(engine) for _ in range(2)]
    assert [next(items) for items in running] == [Token("a", 1)] * 2
    polls = iter([False] * 3)
    assert [*generate(engine, cancelled=lambda: next(polls, True))] == [Finish("cancelled", 0, 0, 0)]
    assert len(endpoint.requests) == 2
    running[0].close()  # type: ignore[attr-defined]
    assert answer(engine)[0] == "c"
    running[1].close()  # type: ignore[attr-defined]


def test_a_limit_of_0_tokens_sends_no_request(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    assert answer(engine, max_output_tokens=0) == ("", [], Finish("length", engine.count(PROMPT), 0, 0))
    assert not endpoint.requests


def test_tokens_are_estimated(engine: OpenAIEngine) -> None:
    assert engine.count([Message("user", "a" * 400)]) == 104
    assert engine.count([Message("user", "日本語")]) == 7
    assert engine.count(PROMPT, OutputFormat((WEATHER,))) > engine.count(PROMPT)


def test_probe_reports_the_response_time_or_times_out(endpoint: Endpoint) -> None:
    freed = threading.Event()
    endpoint.handlers += [answers_with("Hi", reason="length"), lambda request: wait_for_disconnect(request, freed)]

    assert probe(settings_of(endpoint).upstreams[0], "big").startswith(f"big at {endpoint.url} responds in 0.")
    assert endpoint.requests[0].body["max_tokens"] == 1
    with pytest.raises(EngineError, match=r"within 0\.1 s"):
        probe(settings_of(endpoint).upstreams[0], "big", timeout=0.1)


def test_the_engine_imports_neither_llama_cpp_nor_httpx() -> None:
    program = (
        "import sys; from models.platform.settings import Settings; from pipelines.inference import registry; "
        "upstream = {'name': 'x', 'url': 'https://x', 'models': ['m']}; "
        "registry.load_engine(Settings(engine='openai', upstreams=[upstream])); "
        "assert not {'xllamacpp', 'llguidance', 'httpx', 'numpy'} & set(sys.modules), sorted(sys.modules); "
        "import pipelines.inference.scripted.engine"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_close_closes_the_connections(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with("a")]
    answer(engine)
    engine.close()
    assert wait_until(lambda: not engine._client._pool.connections)
