"""Given the scripted endpoint as a process, when clients send requests, then it plays its script and its faults."""

import http.client
import time
from collections.abc import Iterator

import orjson
import pytest

from bench.harness.endpoint.client import ScriptedEndpoint, scripted_endpoint
from bench.harness.sse import CheckFailed, marks_of, scripted_text, without_marks
from bench.harness.waiting import wait_until
from bench.peers.limit import answers_a_second
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from pipelines.inference.engine import EngineError, Finish, Message, Sampling, Token
from pipelines.inference.openai.engine import OpenAIEngine
from tests.pipelines.inference.openai.generation import engine_of as of_settings


@pytest.fixture(scope="module")
def process() -> Iterator[ScriptedEndpoint]:
    with scripted_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(process: ScriptedEndpoint) -> Iterator[ScriptedEndpoint]:
    """The endpoint, with its first behaviour."""
    yield process
    process.change(tokens=20, rate=0.0, slow=0.0, nonce=False, continues=False, limit=0)
    process.heal()


@pytest.fixture
def engine(endpoint: ScriptedEndpoint) -> Iterator[OpenAIEngine]:
    engine = engine_of(endpoint, "cloud")
    yield engine
    engine.close()


def engine_of(endpoint: ScriptedEndpoint, model: str) -> OpenAIEngine:
    return of_settings(Settings(engine="openai", upstreams=(Upstream("test", endpoint.url, (model,)),)))


def answer(engine: OpenAIEngine, text: str = "hello", limit: int = 99) -> tuple[str, Finish]:
    *tokens, finish = engine.generate(
        [Message("user", text)], prefix="", sampling=Sampling(limit), cancelled=lambda: False
    )
    assert isinstance(finish, Finish)
    return "".join(token.text for token in tokens if isinstance(token, Token)), finish


def test_several_requests_on_one_connection_get_the_script_that_the_model_names(endpoint: ScriptedEndpoint) -> None:
    engine = engine_of(endpoint, "tokens=20;rate=0")
    for _ in range(3):
        assert answer(engine) == (scripted_text(20), Finish("stop", 1, 0, 20))
    engine.close()


def test_tokens_are_sent_at_the_rate_of_the_script(endpoint: ScriptedEndpoint) -> None:
    engine, began = engine_of(endpoint, "tokens=11;rate=100"), time.monotonic()
    assert answer(engine)[0] == scripted_text(11)
    assert time.monotonic() - began >= 0.1
    engine.close()


def test_a_request_limits_its_answer_and_each_answer_marks_its_words(
    endpoint: ScriptedEndpoint, engine: OpenAIEngine
) -> None:
    endpoint.change(nonce=True, tokens=8)
    (first, end), (second, _) = answer(engine, limit=5), answer(engine, "hello again")

    assert (without_marks(first), without_marks(second)) == (scripted_text(5), scripted_text(8))
    assert end == Finish("length", 1, 0, 5)
    assert len(set(marks_of(first))) == 1
    assert marks_of(first)[0] != marks_of(second)[0]


def test_the_book_has_each_request_with_its_key_its_text_and_the_tokens_sent(
    endpoint: ScriptedEndpoint, engine: OpenAIEngine
) -> None:
    before = len(endpoint.book())
    answer(engine, "about the sea")
    answer(engine, "about rivers", limit=3)

    sea, rivers = endpoint.book(before)
    assert (sea.text, sea.sent, sea.outcome, sea.status) == ("about the sea", 20, "answered", 200)
    assert (rivers.text, rivers.sent, rivers.model) == ("about rivers", 3, "cloud")
    assert sea.key
    assert rivers.key
    assert sea.key != rivers.key


@pytest.mark.parametrize(("after", "sent"), [(0, 0), (7, 7)])
def test_a_dropped_answer_fails_after_its_tokens_and_is_booked(
    endpoint: ScriptedEndpoint, engine: OpenAIEngine, after: int, sent: int
) -> None:
    before = len(endpoint.book())
    endpoint.change(fault="drop", after=after, rate=200.0, times=1)

    with pytest.raises(EngineError):
        answer(engine)
    assert answer(engine)[0] == scripted_text(20)

    dropped, answered = endpoint.book(before)
    assert (dropped.sent, dropped.outcome, dropped.fault) == (sent, "failed", "drop")
    assert (answered.outcome, answered.fault) == ("answered", "none")


def test_an_event_that_is_no_json_fails_the_answer(endpoint: ScriptedEndpoint, engine: OpenAIEngine) -> None:
    endpoint.change(fault="garbage", after=3)
    with pytest.raises(EngineError, match="invalid chunk"):
        answer(engine)


def test_a_refused_connection_is_accepted_again_after_the_fault(
    endpoint: ScriptedEndpoint, engine: OpenAIEngine
) -> None:
    endpoint.change(fault="refuse")
    with pytest.raises(EngineError):
        answer(engine)

    endpoint.heal()
    assert answer(engine)[0] == scripted_text(20)


def test_an_error_has_its_status_and_the_time_to_retry(endpoint: ScriptedEndpoint) -> None:
    endpoint.change(fault="status", status=429, retry_after=7)
    status, headers, _ = post(endpoint, {"model": "cloud", "messages": []})
    assert (status, headers["Retry-After"]) == (429, "7")


def test_a_late_answer_is_complete(endpoint: ScriptedEndpoint, engine: OpenAIEngine) -> None:
    endpoint.change(fault="slow", delay=0.2)
    began = time.monotonic()
    assert answer(engine)[0] == scripted_text(20)
    assert time.monotonic() - began >= 0.2


def test_a_request_beyond_the_limit_of_answers_gets_429(endpoint: ScriptedEndpoint, engine: OpenAIEngine) -> None:
    endpoint.change(limit=1, rate=1.0, tokens=1000)
    tokens = engine.generate([Message("user", "x")], prefix="", sampling=Sampling(9), cancelled=lambda: False)
    next(tokens)

    assert post(endpoint, {"model": "cloud", "messages": []})[0] == 429
    tokens.close()  # type: ignore[attr-defined]
    assert wait_until(lambda: endpoint.book()[-2].outcome == "disconnected")


def test_an_answer_continues_a_trailing_assistant_message_where_the_endpoint_can(endpoint: ScriptedEndpoint) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "w0 w1 w2 "}]
    body = {"model": "cloud", "messages": messages}
    assert content_of(post(endpoint, body)) == scripted_text(20)

    endpoint.change(continues=True)
    assert content_of(post(endpoint, body)) == scripted_text(20).removeprefix("w0 w1 w2 ")
    assert endpoint.book()[-1].first == 3


@pytest.mark.parametrize("body", [b"{}", b"{", b'{"messages": [7]}', b"7"])
def test_a_request_that_cannot_be_read_is_rejected(endpoint: ScriptedEndpoint, body: bytes) -> None:
    connection = http.client.HTTPConnection(*endpoint.address, timeout=5)
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", body)
        response = connection.getresponse()
        assert response.status == 400
        assert orjson.loads(response.read())["error"]["message"]
    connection.close()


def test_an_unknown_fault_is_rejected(endpoint: ScriptedEndpoint) -> None:
    with pytest.raises(CheckFailed, match="no fault 'fire'"):
        endpoint.change(fault="fire")
    with pytest.raises(CheckFailed, match="no speed"):
        endpoint.change(speed=3)


def test_the_limit_of_the_endpoint_is_measured(endpoint: ScriptedEndpoint) -> None:
    assert answers_a_second(endpoint.address, 2, "tokens=5;rate=0", answers=20) > 0


def post(endpoint: ScriptedEndpoint, body: object) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request that is not streamed; returns the response's status, headers and body."""
    connection = http.client.HTTPConnection(*endpoint.address, timeout=5)
    connection.request("POST", "/v1/chat/completions", orjson.dumps(body))
    response = connection.getresponse()
    try:
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def content_of(response: tuple[int, http.client.HTTPMessage, bytes]) -> str:
    content: str = orjson.loads(response[2])["choices"][0]["message"]["content"]
    return content
