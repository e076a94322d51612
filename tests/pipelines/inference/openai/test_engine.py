"""Given an endpoint over HTTP that answers, fails, breaks off or is slow, then the engine does as its contract says."""

import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

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
from pipelines.inference.openai.completions import max_tokens_field, request_body
from pipelines.inference.openai.engine import OpenAIEngine
from pipelines.inference.registry import load_engine
from tests.pipelines.inference.openai.endpoint import DONE, Asked, Endpoint, chunk, refuses, says, serving

PROMPT = [Message("system", "be kind"), Message("user", "hello there")]
KEY = "sk-hunter2"
NOW, NOTHING = Tool("now", "", {}), {"type": "object", "properties": {}}
WEATHER = Tool("weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def engine(endpoint: Endpoint) -> Iterator[OpenAIEngine]:
    engine = load_engine(given(endpoint))
    assert isinstance(engine, OpenAIEngine)
    yield engine
    engine.close()


def given(endpoint: Endpoint, *, https: bool = False) -> Settings:
    url = endpoint.url.replace("http:", "https:") if https else endpoint.url
    return Settings(engine="openai", upstreams=(Upstream("test", url, ("big",), KEY),), slots=2, context=900)


def generate(
    engine: OpenAIEngine,
    output_format: OutputFormat = PLAIN_TEXT,
    prompt: list[Message] = PROMPT,
    cancelled: Callable[[], bool] = lambda: False,
    **sampling: object,
) -> Iterator[EngineOutput]:
    asked = Sampling(**{"max_output_tokens": 50, **sampling})  # type: ignore[arg-type]
    return engine.generate(prompt, prefix="", sampling=asked, cancelled=cancelled, output_format=output_format)


def answer(
    engine: OpenAIEngine, output_format: OutputFormat = PLAIN_TEXT, **sampling: object
) -> tuple[str, list[GeneratedCall], Finish]:
    """Text, calls and end; what was told adds up to what is said to have been generated."""
    *told, finish = generate(engine, output_format, **sampling)
    assert isinstance(finish, Finish)
    assert finish.generated_tokens == sum(piece.count for piece in told if not isinstance(piece, Finish))
    text = "".join(piece.text for piece in told if isinstance(piece, Token))
    return text, [piece for piece in told if isinstance(piece, GeneratedCall)], finish


def test_an_answer_comes_as_it_is_told_and_the_connection_is_used_again(
    endpoint: Endpoint, engine: OpenAIEngine
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    endpoint.plays += [says("a", "b ", "ö", usage=usage), says("c", reason="length"), says("d", reason="stop")]

    assert answer(engine) == ("ab ö", [], Finish("stop", 9, 4, 3))
    assert answer(engine) == ("c", [], Finish("length", engine.count(PROMPT), 0, 1))
    assert answer(engine)[0] == "d"
    assert endpoint.connections == 1
    assert (engine.name, engine.slots, engine.context, engine.continues) == ("big", 2, 900, False)


def test_what_was_generated_beside_the_text_is_told_at_the_end(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.plays += [says("a", "b", usage={"prompt_tokens": 1, "completion_tokens": 7})]

    assert list(generate(engine)) == [Token("a", 1), Token("b", 1), Token("", 5), Finish("stop", 1, 0, 7)]


def test_all_of_the_question_is_passed_on(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.plays += [says("a")]
    called = Message("assistant", "", (ToolCall("c1", "weather", '{"city": "Ulm"}'),))
    prompt = [*PROMPT, called, Message("tool", "rain <|im_end|>", call_id="c1")]

    list(
        generate(
            engine, OutputFormat((WEATHER,), parallel=False), prompt, temperature=0, top_p=0.5, seed=7, stop=("END", "")
        )
    )

    asked = endpoint.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    function = {"name": "weather", "arguments": '{"city": "Ulm"}'}
    tool = {"name": "weather", "description": "of a city", "parameters": dict(WEATHER.parameters)}
    assert asked.body == {
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
def test_the_longest_answer_goes_by_the_hosts_name_for_it(host: str, limit: str) -> None:
    assert max_tokens_field(host) == limit
    asked = request_body("big", PROMPT, Sampling(7), PLAIN_TEXT, max_tokens_field(host))
    assert {name: asked[name] for name in asked if name.startswith("max_")} == {limit: 7}


@pytest.mark.parametrize(
    ("output_format", "asked"),
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
def test_a_form_is_passed_on(
    endpoint: Endpoint, engine: OpenAIEngine, output_format: OutputFormat, asked: dict[str, object]
) -> None:
    endpoint.plays += [calls((0, "now", ""))] if output_format.must_call_tool else [says("{", "}")]
    assert answer(engine, output_format)[0] == ("" if output_format.must_call_tool else "{}")
    said = endpoint.asked[0].body
    assert {name: said[name] for name in said if name in ("tools", "tool_choice", "response_format")} == asked


def calls(*parts: tuple[int, str, str], reason: str = "tool_calls") -> Callable[[Asked], None]:
    def play(asked: Asked) -> None:
        asked.begin()
        for index, name, arguments in parts:
            function = {"arguments": arguments} | ({"name": name} if name else {})
            asked.send(chunk({"tool_calls": [{"index": index, "function": function}]}))
        asked.send(chunk({}, reason))
        asked.send(chunk(usage={"prompt_tokens": 5, "completion_tokens": 12}))
        asked.send(DONE)
        asked.end()

    return play


def test_calls_come_whole(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    output_format = OutputFormat((WEATHER,), "required")
    whole = GeneratedCall("weather", '{"city": "Ulm"}', 11)
    endpoint.plays += [calls((0, "weather", '{"city"'), (0, "", ': "Ulm"}'), (1, "weather", ""))]
    assert answer(engine, output_format) == ("", [whole, GeneratedCall("weather", "{}", 1)], Finish("stop", 5, 0, 12))
    # But for one that the limit cuts
    endpoint.plays += [calls((0, "weather", '{"city": "Ulm"}'), (1, "weather", '{"ci'), reason="length")]
    assert answer(engine, output_format)[1:] == (
        [GeneratedCall("weather", '{"city": "Ulm"}', 12)],
        Finish("length", 5, 0, 12),
    )
    # One of what is no function, or no JSON, is the model's failure
    for wrong in (("whether", "{}"), ("weather", "{")):
        endpoint.plays += [calls((0, *wrong))]
        with pytest.raises(EngineError, match="none of a function"):
            answer(engine, output_format)


@pytest.mark.parametrize("output_format", [OutputFormat((WEATHER,), "required"), OutputFormat(schema={})])
def test_an_answer_that_breaks_its_form_is_the_models_failure(
    endpoint: Endpoint, engine: OpenAIEngine, output_format: OutputFormat
) -> None:
    endpoint.plays += [says("in words")]
    with pytest.raises(EngineError, match="had to"):
        answer(engine, output_format)


@pytest.mark.parametrize("status", [429, 408, 500, 503])
def test_what_passes_is_tried_again(endpoint: Endpoint, engine: OpenAIEngine, status: int) -> None:
    endpoint.plays += [refuses(status, f"wait, {KEY}"), says("a")]
    with pytest.raises(EngineError, match=rf"{status}: wait, \*\*\*"):
        answer(engine)
    assert answer(engine)[0] == "a"


def test_no_half_of_the_key_is_left_where_an_error_is_cut_off(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.plays += [refuses(500, "x" * 295 + KEY)]
    with pytest.raises(EngineError) as caught:
        answer(engine)
    assert KEY[:4] not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said", "code", "told"),
    [
        (400, "temperature is 7", "invalid_request", "temperature is 7"),
        (400, "maximum context length is 900", "context_length_exceeded", "maximum context length is 900"),
        (401, f"{KEY} is no key", "server_error", "refuses our requests (401)"),
        (404, "no such model", "server_error", "refuses our requests (404)"),
        (301, "elsewhere", "server_error", "refuses our requests (301)"),
    ],
)
def test_what_does_not_pass_fails(
    endpoint: Endpoint, engine: OpenAIEngine, status: int, said: str, code: str, told: str
) -> None:
    endpoint.plays += [refuses(status, said)]
    with pytest.raises(PermanentFailure) as caught:
        answer(engine)
    assert caught.value.code == code
    assert told in caught.value.message
    assert KEY not in caught.value.message


def cut_after(*chunks: bytes) -> Callable[[Asked], None]:
    def play(asked: Asked) -> None:
        asked.begin()
        for data in chunks:
            asked.send(data)
        asked.cut()

    return play


def ends_after(*chunks: bytes) -> Callable[[Asked], None]:
    def play(asked: Asked) -> None:
        asked.begin()
        for data in chunks:
            asked.send(data)
        asked.end()

    return play


@pytest.mark.parametrize(
    ("play", "match"),
    [
        (cut_after(chunk({"content": "a"})), "broke off"),
        (ends_after(chunk({"content": "a"})), "in its middle"),
        (ends_after(chunk({"content": "a"}), b"data: {not json\n\n"), "no chunk"),
        (ends_after(chunk({"content": "a"}), b'data: {"choices": [7]}\n\n'), "no chunk"),
        (ends_after(chunk({"content": "a"}), b'data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
        (ends_after(chunk({"content": "a"}), b"data: " + b"x" * (openai_engine.MAX_CHUNK + 1)), "a line of more"),
    ],
)
def test_an_answer_that_breaks_off_is_an_engines_error_after_what_was_heard(
    endpoint: Endpoint, engine: OpenAIEngine, play: Callable[[Asked], None], match: str
) -> None:
    endpoint.plays += [play, says("b")]
    items = generate(engine)
    assert next(items) == Token("a", 1)
    with pytest.raises(EngineError, match=match):
        list(items)
    assert answer(engine)[0] == "b"


def test_chunks_may_come_in_pieces_and_several_at_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    whole = b": ping\n\n" + chunk({"content": "a"}) + chunk({"content": "b"}, "stop") + DONE
    endpoint.plays += [ends_after(*(whole[at : at + 7] for at in range(0, len(whole), 7)))]
    assert answer(engine)[0] == "ab"


def hangs(asked: Asked, freed: threading.Event) -> None:
    if asked.gone():
        freed.set()


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_a_stop_closes_the_connection_while_nothing_comes(endpoint: Endpoint, engine: OpenAIEngine, begun: int) -> None:
    """Before the answer's head, before its first token, and after it."""
    freed, told = threading.Event(), threading.Event()

    def play(asked: Asked) -> None:
        if begun:
            asked.begin()
        if begun == 2:
            asked.send(chunk({"content": "a"}))
        told.set()
        hangs(asked, freed)

    endpoint.plays += [play, says("b")]
    looks = iter([False] * 5)
    items = generate(engine, cancelled=lambda: told.is_set() and next(looks, True))
    if begun == 2:
        assert next(items) == Token("a", 1)
    began = time.monotonic()
    assert [item.reason for item in items if isinstance(item, Finish)] == ["cancelled"]
    assert freed.wait(1)
    assert time.monotonic() - began < 0.5  # five looks 20 ms apart, and what a busy machine adds
    assert answer(engine)[0] == "b"


def test_leaving_closes_the_connection(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    freed = threading.Event()

    def play(asked: Asked) -> None:
        asked.begin()
        asked.send(chunk({"content": "a"}))
        hangs(asked, freed)

    endpoint.plays += [play]
    items = generate(engine)
    assert next(items) == Token("a", 1)
    items.close()  # type: ignore[attr-defined]
    assert freed.wait(5)


def test_what_cancelled_raises_comes_out(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    freed = threading.Event()
    endpoint.plays += [lambda asked: hangs(asked, freed)]

    def cancelled() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        list(generate(engine, cancelled=cancelled))
    assert freed.wait(5)


def test_one_that_is_too_slow_is_given_up(
    endpoint: Endpoint, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_engine, "FIRST_CHUNK_TIMEOUT", 0.05)
    freed = threading.Event()
    endpoint.plays += [lambda asked: hangs(asked, freed)]
    with pytest.raises(EngineError, match="nothing came for"):
        answer(engine)
    assert freed.wait(5)


def test_more_than_its_slots_wait_and_may_be_stopped(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    def play(asked: Asked) -> None:
        asked.begin()
        asked.send(chunk({"content": "a"}))
        asked.gone()

    endpoint.plays += [play, play, says("c")]
    running = [generate(engine) for _ in range(2)]
    assert [next(items) for items in running] == [Token("a", 1)] * 2
    looks = iter([False] * 3)
    assert [*generate(engine, cancelled=lambda: next(looks, True))] == [Finish("cancelled", 0, 0, 0)]
    assert len(endpoint.asked) == 2
    running[0].close()  # type: ignore[attr-defined]
    assert answer(engine)[0] == "c"
    running[1].close()  # type: ignore[attr-defined]


def test_an_idle_connection_that_the_endpoint_closes_is_not_used(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    closed = threading.Event()

    def play(asked: Asked) -> None:
        says("a")(asked)
        asked.cut()
        closed.set()

    endpoint.plays += [play, says("b")]
    assert answer(engine)[0] == "a"
    assert closed.wait(5)
    assert answer(engine)[0] == "b"


def test_what_is_closed_as_it_is_taken_is_asked_again_once(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.plays += [says("a"), Asked.cut, says("b"), Asked.cut, Asked.cut]
    assert answer(engine)[0] == "a"
    assert answer(engine)[0] == "b"
    with pytest.raises(EngineError, match="broke off"):
        answer(engine)


def test_tls_is_spoken_with_one_that_is_who_it_says(
    endpoint: Endpoint, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.socket = trusted.wrap_socket(endpoint.socket, server_side=True)
    freed = threading.Event()
    endpoint.plays += [says(*"abc" * 50), lambda asked: hangs(asked, freed)]
    settings = given(endpoint, https=True)
    engine = OpenAIEngine(settings)
    assert answer(engine)[0] == "abc" * 50
    looks = iter([False] * 5)
    assert [*generate(engine, cancelled=lambda: next(looks, True))] == [Finish("cancelled", 0, 0, 0)]
    assert freed.wait(5)
    engine.close()
    # And with nobody else
    monkeypatch.delenv("SSL_CERT_FILE")
    engine = OpenAIEngine(settings)
    with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED"):
        answer(engine)
    engine.close()


def test_what_tls_says_to_itself_keeps_nobody_from_stopping(endpoint: Endpoint, trusted: ssl.SSLContext) -> None:
    """TLS 1.3 sends its tickets after the greeting: bytes that can be read, and no answer."""
    endpoint.socket = trusted.wrap_socket(endpoint.socket, server_side=True)
    freed, told = threading.Event(), threading.Event()
    endpoint.plays += [lambda asked: (told.set(), hangs(asked, freed))]
    engine = OpenAIEngine(given(endpoint, https=True))
    looks = iter([False] * 5)
    begun = time.monotonic()

    told_at_last = [*generate(engine, cancelled=lambda: told.is_set() and next(looks, True))]

    assert told_at_last == [Finish("cancelled", 0, 0, 0)]
    assert time.monotonic() - begun < 3
    assert freed.wait(5)
    engine.close()


def test_nobody_there_is_an_engines_error() -> None:
    with serving() as endpoint:
        settings = given(endpoint)
    engine = OpenAIEngine(settings)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:\d+ broke off or does not answer"):
        answer(engine)
    engine.close()


def test_a_limit_of_nothing_asks_nobody(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    assert answer(engine, max_output_tokens=0) == ("", [], Finish("length", engine.count(PROMPT), 0, 0))
    assert not endpoint.asked


def test_a_count_is_near_what_models_count(engine: OpenAIEngine) -> None:
    assert engine.count([Message("user", "a" * 400)]) == 104
    assert engine.count([Message("user", "日本語")]) == 7
    assert engine.count(PROMPT, OutputFormat((WEATHER,))) > engine.count(PROMPT)


def test_a_greeting_tells_whether_somebody_answers(endpoint: Endpoint) -> None:
    freed = threading.Event()
    endpoint.plays += [says("Hi", reason="length"), lambda asked: hangs(asked, freed)]

    assert openai_engine.probe(given(endpoint)).startswith(f"big at {endpoint.url} answers in 0.")
    assert endpoint.asked[0].body["max_tokens"] == 1
    with pytest.raises(EngineError, match=r"within 0\.1 s"):
        openai_engine.probe(given(endpoint), patience=0.1)


def test_it_loads_no_model_and_nothing_waits_for_it() -> None:
    program = (
        "import sys; from models.platform.settings import Settings; from pipelines.inference import registry; "
        "upstream = {'name': 'x', 'url': 'https://x', 'models': ['m']}; "
        "registry.load_engine(Settings(engine='openai', upstreams=[upstream])); "
        "assert not {'xllamacpp', 'llguidance', 'httpx', 'numpy'} & set(sys.modules), sorted(sys.modules); "
        "import pipelines.inference.scripted.engine"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_closed_connections_are_seen(endpoint: Endpoint, engine: OpenAIEngine) -> None:
    endpoint.plays += [says("a")]
    answer(engine)
    engine.close()
    assert wait_until(lambda: not engine._pool.connections)
