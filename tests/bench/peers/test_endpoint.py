"""Given the scripted endpoint, when platforms send requests, then it answers with its script."""

import asyncio
import http.client
import threading
import time
from collections.abc import Iterator

import orjson
import pytest

from bench.harness.sse import scripted_text
from bench.harness.waiting import wait_until
from bench.peers.endpoint import serve
from bench.peers.limit import answers_a_second
from models.platform.settings import Settings
from models.platform.upstreams import Upstream
from ops.rabbitmq import free_ports
from pipelines.inference.engine import Finish, Message, Sampling, Token
from pipelines.inference.openai.engine import OpenAIEngine


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a running endpoint."""
    port, ready = free_ports(1)[0], threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(port, ready.set))
    thread = threading.Thread(target=run, args=(loop, task))
    thread.start()
    assert ready.wait(5)
    yield port
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


def run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def engine(port: int, model: str) -> OpenAIEngine:
    return OpenAIEngine(
        Settings(engine="openai", upstreams=(Upstream("peer", f"http://127.0.0.1:{port}/v1", (model,)),))
    )


def answer(engine: OpenAIEngine) -> tuple[str, Finish]:
    *tokens, finish = engine.generate(
        [Message("user", "hello")], prefix="", sampling=Sampling(99), cancelled=lambda: False
    )
    assert isinstance(finish, Finish)
    return "".join(token.text for token in tokens if isinstance(token, Token)), finish


def test_several_requests_on_one_connection_get_the_script(port: int) -> None:
    client = engine(port, "tokens=20;rate=0")
    for _ in range(3):
        assert answer(client) == (scripted_text(20), Finish("stop", 1, 0, 20))
    client.close()


def test_tokens_are_sent_at_the_rate_of_the_script(port: int) -> None:
    client = engine(port, "tokens=11;rate=100")
    began = time.monotonic()
    assert answer(client)[0] == scripted_text(11)
    assert time.monotonic() - began >= 0.1
    client.close()


def test_a_client_that_disconnects_does_not_affect_others(port: int) -> None:
    leaving, staying = engine(port, "tokens=1000;rate=100"), engine(port, "tokens=3;rate=0")
    items = leaving.generate([Message("user", "hello")], prefix="", sampling=Sampling(9), cancelled=lambda: False)
    assert next(items) == Token("w0 ", 1)
    items.close()  # type: ignore[attr-defined]
    assert answer(staying)[0] == scripted_text(3)
    leaving.close()
    staying.close()
    assert wait_until(lambda: not leaving._pool.connections)


@pytest.mark.parametrize("body", [b"{}", b"{", b'{"model": "gpt"}', b"7"])
def test_a_model_that_is_no_script_is_rejected(port: int, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", body)
        response = connection.getresponse()
        assert response.status == 400
        assert orjson.loads(response.read())["error"]["message"]
    connection.close()


def test_the_limit_of_the_endpoint_is_measured(port: int) -> None:
    assert answers_a_second(("127.0.0.1", port), 2, "tokens=5;rate=0", answers=20) > 0
