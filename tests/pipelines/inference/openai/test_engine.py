"""The engine `openai` with an endpoint over HTTP that answers, fails, disconnects or is slow."""

import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from bench.harness.waiting import wait_until
from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.openai import engine as openai_engine
from pipelines.inference.openai.completions import cache_isolation, max_tokens_field, request_body
from pipelines.inference.openai.engine import OpenAIEngine
from pipelines.inference.registry import load_engine
from tests.pipelines.inference.openai.endpoint import (
    DONE,
    Endpoint,
    ReceivedRequest,
    answers_with,
    chunk,
    fails_with,
    running_endpoint,
)

PROMPT = [Message("system", "be kind"), Message("user", "hello there")]
KEY = "sk-hunter2"
NOW, NOTHING = Tool("now", "", {}), {"type": "object", "properties": {}}
WEATHER = Tool("weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def engine(endpoint: Endpoint) -> Iterator[OpenAIEngine]:
    engine = load_engine(settings_of(endpoint))
    assert isinstance(engine, OpenAIEngine)
    yield engine
    engine.close()


def settings_of(endpoint: Endpoint, *, https: bool = False) -> Settings:
    url = endpoint.url.replace("http:", "https:") if https else endpoint.url
    return Settings(engine="openai", upstreams=(Upstream("test", url, ("big",), KEY),), slots=2, context=900)


def generate(
    engine: OpenAIEngine,
    output_format: OutputFormat = PLAIN_TEXT,
    prompt: list[Message] = PROMPT,
    cancelled: Callable[[], bool] = lambda: False,
    **sampling: object,
) -> Iterator[EngineOutput]:
    options = Sampling(**{"max_output_tokens": 50, **sampling})  # type: ignore[arg-type]
    return engine.generate(prompt, prefix="", sampling=options, cancelled=cancelled, output_format=output_format)


def answer(
    engine: OpenAIEngine, output_format: OutputFormat = PLAIN_TEXT, **sampling: object
) -> tuple[str, list[GeneratedCall], Finish]:
    """Return the text, the calls and the end of an answer. Checks that the counts add up."""
    *outputs, finish = generate(engine, output_format, **sampling)
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(output.count for output in outputs if not isinstance(output, Finish))
    text = "".join(output.text for output in outputs if isinstance(output, Token))
    return text, [output for output in outputs if isinstance(output, GeneratedCall)], finish


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


def test_accounts_share_no_prompt_cache_of_the_endpoint_if_the_setting_says_so(endpoint: Endpoint) -> None:
    # Given an engine with isolated prompts, and one without
    settings = settings_of(endpoint)
    engines = [OpenAIEngine(settings.model_copy(update={"prompt_cache": value})) for value in ("account", "shared")]
    salts = []

    def respond(request: ReceivedRequest) -> None:
        salts.append(request.body.get("cache_salt"))
        answers_with("a")(request)

    endpoint.handlers += [respond] * 8

    # When accounts generate
    for engine in engines:
        for owner in ("acct_1", "acct_1", "acct_2", None):
            options = {"sampling": Sampling(5), "cancelled": lambda: False}
            assert [*engine.generate(PROMPT, prefix="", cache_owner=owner, **options)]  # type: ignore[arg-type]
        engine.close()

    # Then each account has a salt of its own, which does not name it
    assert salts[0] == salts[1]
    assert len({*salts[:4]}) == 3
    assert "acct_1" not in str(salts)
    assert salts[4:] == [None] * 4
    assert list(cache_isolation("api.openai.com:443", "acct_1")) == ["prompt_cache_key"]


def test_tokens_beyond_the_text_are_counted_at_the_end(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with("a", "b", usage={"prompt_tokens": 1, "completion_tokens": 7})]

    assert list(generate(engine)) == [Token("a", 1), Token("b", 1), Token("", 5), Finish("stop", 1, 0, 7)]


def test_the_request_contains_prompt_sampling_and_tools(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [answers_with("a")]
    assistant = Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Ulm"}'),))
    prompt = [*PROMPT, assistant, Message("tool", "rain <|im_end|>", call_id="c1")]

    list(
        generate(
            engine, OutputFormat((WEATHER,), parallel=False), prompt, temperature=0, top_p=0.5, seed=7, stop=("END", "")
        )
    )

    request = endpoint.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
    tool = {"name": "weather", "description": "of a city", "parameters": dict(WEATHER.parameters)}
    assert request.body == {
        "model": "big",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hello there"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function",
                                                                   "function": function}]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain <\u200b|im_end|>"},
        ],
        "max_tokens": 50,
        "temperature": 0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["END"],
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("host", "limit"),
    [
        ("api.openai.com", "max_completion_tokens"),
        ("us.openai.azure.com:443", "max_completion_tokens"),
        ("api.example.com", "max_tokens"),
        ("openai.com.example.com:8000", "max_tokens"),
    ],
)
def test_the_token_limit_is_sent_under_the_hosts_name_for_it(host: str, limit: str) -> None:
    assert max_tokens_field(host) == limit
    body = request_body("big", PROMPT, Sampling(7), PLAIN_TEXT, host)
    assert {name: body[name] for name in body if name.startswith("max_")} == {limit: 7}


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        (OutputFormat(schema={}), {"response_format": {"type": "json_object"}}),
        (OutputFormat(schema={"type": "object"}),
         {"response_format": {"type": "json_schema",
                              "json_schema": {"name": "answer", "schema": {"type": "object"}}}}),
        (OutputFormat((WEATHER,), tool_choice="none"), {}),
        (OutputFormat((WEATHER, NOW), tool_choice=("function", "now")),
         {"tools": [{"type": "function", "function": {"name": "now", "description": "", "parameters": NOTHING}}],
          "tool_choice": "required"}),
    ],
)  # fmt: skip
def test_the_output_format_is_sent(
    endpoint: Endpoint, engine: OpenAIEngine, output_format: OutputFormat, expected: dict[str, object]
) -> None:
    endpoint.handlers += [calls_with((0, "now", ""))] if output_format.must_call_tool else [answers_with("{", "}")]
    assert answer(engine, output_format)[0] == ("" if output_format.must_call_tool else "{}")
    body = endpoint.requests[0].body
    assert {name: body[name] for name in body if name in ("tools", "tool_choice", "response_format")} == expected


def calls_with(*parts: tuple[int, str, str], reason: str = "tool_calls") -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for index, name, arguments in parts:
            function = {"arguments": arguments} | ({"name": name} if name else {})
            request.send(chunk({"tool_calls": [{"index": index, "function": function}]}))
        request.send(chunk({}, reason))
        request.send(chunk(usage={"prompt_tokens": 5, "completion_tokens": 12}))
        request.send(DONE)
        request.end_stream()

    return handle


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


@pytest.mark.parametrize("status", [429, 408, 500, 503])
def test_a_temporary_error_status_is_an_engine_error_and_the_next_request_succeeds(
    endpoint: Endpoint, engine: OpenAIEngine, status: int
) -> None:
    endpoint.handlers += [fails_with(status, f"wait, {KEY}"), answers_with("a")]
    with pytest.raises(EngineError, match=rf"{status}: wait, \*\*\*"):
        answer(engine)
    assert answer(engine)[0] == "a"


def test_the_api_key_is_masked_before_an_error_is_cut(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [fails_with(500, "x" * 295 + KEY)]
    with pytest.raises(EngineError) as caught:
        answer(engine)
    assert KEY[:4] not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, "temperature is 7", "invalid_request", "temperature is 7"),
        (400, "maximum context length is 900", "context_length_exceeded", "maximum context length is 900"),
        (401, f"{KEY} is no key", "server_error", "rejects this installation's requests (401)"),
        (404, "no such model", "server_error", "rejects this installation's requests (404)"),
        (301, "elsewhere", "server_error", "rejects this installation's requests (301)"),
    ],
)
def test_a_permanent_error_status_is_a_permanent_failure_without_the_api_key(
    endpoint: Endpoint, engine: OpenAIEngine, status: int, body: str, code: str, message: str
) -> None:
    endpoint.handlers += [fails_with(status, body)]
    with pytest.raises(PermanentFailure) as caught:
        answer(engine)
    assert caught.value.code == code
    assert message in caught.value.message
    assert KEY not in caught.value.message


def breaks_after(*chunks: bytes) -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for data in chunks:
            request.send(data)
        request.break_connection()

    return handle


def ends_stream_after(*chunks: bytes) -> Callable[[ReceivedRequest], None]:
    def handle(request: ReceivedRequest) -> None:
        request.begin_stream()
        for data in chunks:
            request.send(data)
        request.end_stream()

    return handle


@pytest.mark.parametrize(
    ("handle", "match"),
    [
        (breaks_after(chunk({"content": "a"})), "closed the connection"),
        (ends_stream_after(chunk({"content": "a"})), "without a finish reason"),
        (ends_stream_after(chunk({"content": "a"}), b"data: {not json\n\n"), "invalid chunk"),
        (ends_stream_after(chunk({"content": "a"}), b'data: {"choices": [7]}\n\n'), "invalid chunk"),
        (
            ends_stream_after(chunk({"content": "a"}), b'data: {"error": {"message": "out of memory"}}\n\n'),
            "out of memory",
        ),
        (
            ends_stream_after(chunk({"content": "a"}), b"data: " + b"x" * (openai_engine.MAX_CHUNK + 1)),
            "a line of more",
        ),
    ],
)
def test_a_truncated_or_invalid_stream_is_an_engine_error_after_its_first_tokens(
    endpoint: Endpoint, engine: OpenAIEngine, handle: Callable[[ReceivedRequest], None], match: str
) -> None:
    endpoint.handlers += [handle, answers_with("b")]
    items = generate(engine)
    assert next(items) == Token("a", 1)
    with pytest.raises(EngineError, match=match):
        list(items)
    assert answer(engine)[0] == "b"


def test_chunks_are_read_in_pieces_and_several_at_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    whole = b": ping\n\n" + chunk({"content": "a"}) + chunk({"content": "b"}, "stop") + DONE
    endpoint.handlers += [ends_stream_after(*(whole[at : at + 7] for at in range(0, len(whole), 7)))]
    assert answer(engine)[0] == "ab"


def wait_for_disconnect(request: ReceivedRequest, freed: threading.Event) -> None:
    if request.disconnects():
        freed.set()


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


def test_an_endpoint_that_sends_nothing_times_out(
    endpoint: Endpoint, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_engine, "FIRST_CHUNK_TIMEOUT", 0.05)
    freed = threading.Event()
    endpoint.handlers += [lambda request: wait_for_disconnect(request, freed)]
    with pytest.raises(EngineError, match="no data for"):
        answer(engine)
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


def test_an_idle_connection_that_the_endpoint_closed_is_not_reused(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    closed = threading.Event()

    def handle(request: ReceivedRequest) -> None:
        answers_with("a")(request)
        request.break_connection()
        closed.set()

    endpoint.handlers += [handle, answers_with("b")]
    assert answer(engine)[0] == "a"
    assert closed.wait(5)
    assert answer(engine)[0] == "b"


def test_a_request_on_a_closed_connection_is_sent_again_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.handlers += [
        answers_with("a"),
        ReceivedRequest.break_connection,
        answers_with("b"),
        ReceivedRequest.break_connection,
        ReceivedRequest.break_connection,
    ]
    assert answer(engine)[0] == "a"
    assert answer(engine)[0] == "b"
    with pytest.raises(EngineError, match="closed the connection"):
        answer(engine)


def test_a_request_that_the_endpoint_may_have_read_is_not_sent_again(
    endpoint: Endpoint, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint may bill it."""
    monkeypatch.setattr(openai_engine, "CLOSED_WITHIN", 0.05)

    def works_and_breaks(request: ReceivedRequest) -> None:
        threading.Event().wait(0.1)
        request.break_connection()

    def breaks_in_the_head(request: ReceivedRequest) -> None:
        request.wfile.write(b"HTTP/1.1 200")
        request.break_connection()

    # Given requests that fail on a new connection, after some work, and after the first bytes of a response
    endpoint.handlers += [ReceivedRequest.break_connection, answers_with("a"), works_and_breaks]
    endpoint.handlers += [answers_with("a"), breaks_in_the_head]

    for first in (None, "a", "a"):
        if first:
            assert answer(engine)[0] == first
        with pytest.raises(EngineError, match="closed the connection"):
            answer(engine)

    assert len(endpoint.requests) == 5


def test_a_repeated_request_has_the_idempotency_key_of_the_first(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    keys: list[str] = []

    def recording(handler: Callable[[ReceivedRequest], None]) -> Callable[[ReceivedRequest], None]:
        return lambda request: (keys.append(request.headers["Idempotency-Key"]), handler(request))[1]

    handlers = [answers_with("a"), ReceivedRequest.break_connection, answers_with("b")]
    endpoint.handlers += [recording(handler) for handler in handlers]

    assert answer(engine)[0] == "a"
    assert answer(engine)[0] == "b"

    assert keys[1] == keys[2] != keys[0]


def test_tls_requires_a_trusted_certificate(
    endpoint: Endpoint, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.socket = trusted.wrap_socket(endpoint.socket, server_side=True)
    freed = threading.Event()
    endpoint.handlers += [answers_with(*"abc" * 50), lambda request: wait_for_disconnect(request, freed)]
    settings = settings_of(endpoint, https=True)
    engine = OpenAIEngine(settings)
    assert answer(engine)[0] == "abc" * 50
    polls = iter([False] * 5)
    assert [*generate(engine, cancelled=lambda: next(polls, True))] == [Finish("cancelled", 0, 0, 0)]
    assert freed.wait(5)
    engine.close()
    # And not with an unknown certificate authority
    monkeypatch.delenv("SSL_CERT_FILE")
    engine = OpenAIEngine(settings)
    with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED"):
        answer(engine)
    engine.close()


def test_tls_session_tickets_do_not_delay_cancelling(endpoint: Endpoint, trusted: ssl.SSLContext) -> None:
    """TLS 1.3 sends session tickets after the handshake: readable bytes without an answer."""
    endpoint.socket = trusted.wrap_socket(endpoint.socket, server_side=True)
    freed, request_received = threading.Event(), threading.Event()
    endpoint.handlers += [lambda request: (request_received.set(), wait_for_disconnect(request, freed))]
    engine = OpenAIEngine(settings_of(endpoint, https=True))
    polls = iter([False] * 5)
    start = time.monotonic()

    outputs = [*generate(engine, cancelled=lambda: request_received.is_set() and next(polls, True))]

    assert outputs == [Finish("cancelled", 0, 0, 0)]
    assert time.monotonic() - start < 3
    assert freed.wait(5)
    engine.close()


def test_a_refused_connection_is_an_engine_error() -> None:
    with running_endpoint() as endpoint:
        settings = settings_of(endpoint)
    engine = OpenAIEngine(settings)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:\d+ does not respond or closed the connection"):
        answer(engine)
    engine.close()


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

    assert openai_engine.probe(settings_of(endpoint)).startswith(f"big at {endpoint.url} responds in 0.")
    assert endpoint.requests[0].body["max_tokens"] == 1
    with pytest.raises(EngineError, match=r"within 0\.1 s"):
        openai_engine.probe(settings_of(endpoint), timeout=0.1)


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
    assert wait_until(lambda: not engine._pool.connections)


SAMPLING = Sampling(
    7, presence_penalty=0.5, frequency_penalty=0.0, logit_bias=((9, -1.0),), top_logprobs=0, top_k=3, min_p=0.1,
    typical_p=0.9, repetition_penalty=1.2, min_tokens=2, ignore_eos=True,
)  # fmt: skip
STANDARD = {"presence_penalty": 0.5, "frequency_penalty": 0.0, "logit_bias": {"9": -1.0}, "logprobs": True}
FURTHER = {
    "top_k": 3, "min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.2, "repeat_penalty": 1.2, "min_tokens": 2,
    "ignore_eos": True, "chat_template_kwargs": {"enable_thinking": False},
}  # fmt: skip


@pytest.mark.parametrize(("host", "further"), [("api.example.com", FURTHER), ("api.openai.com", {})])
def test_sampling_parameters_are_sent_as_the_host_names_them(host: str, further: dict[str, Any]) -> None:
    output_format = OutputFormat(effort="low", template={"enable_thinking": False})
    prompt = [*PROMPT, Message("assistant", "b", reasoning="because"), *PROMPT]
    body = request_body("big", prompt, SAMPLING, output_format, host)
    assert {name: body.get(name) for name in (*STANDARD, *FURTHER) if name in body} == {**STANDARD, **further}
    assert body["reasoning_effort"] == "low"
    reasoning = [message["reasoning_content"] for message in body["messages"] if "reasoning_content" in message]
    assert reasoning == (["because"] if further else [])


def test_a_request_has_no_parameter_without_a_value() -> None:
    body = request_body("big", PROMPT, Sampling(7), PLAIN_TEXT, "api.example.com")
    assert body.keys() == {"model", "messages", "max_tokens", "stream", "stream_options"}
