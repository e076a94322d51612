"""Given bytes of the peer's streams, then they are read as its own client reads them, and what they lack is seen."""

import orjson
import pytest

from bench.peers.runs import Event, dechunked, is_whole, parse, question, succeeded

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(type_: str, data: object, id_: str = "run_event_1") -> bytes:
    return b"event: %b\ndata: %b\nid: %b\n\n" % (type_.encode(), orjson.dumps(data), id_.encode())


def says(text: str) -> bytes:
    return frame("messages", [{"type": "AIMessageChunk", "content": text}, {"langgraph_node": "answer"}])


def chunked(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


END = frame("end", {"status": "success"})
BEGIN = frame("metadata", {"run_id": "r", "attempt": 1})


def test_a_frame_is_an_event() -> None:
    assert parse(3, says("w0 ").strip()) == Event(
        3, "messages", [{"type": "AIMessageChunk", "content": "w0 "}, {"langgraph_node": "answer"}]
    )
    assert parse(3, b": heartbeat") is None
    assert parse(3, b"id: 7\ndata: \nevent: end") == Event(3, "end", None)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(0, "messages", [{"content": "w0 "}, {}]), "w0 "),
        (Event(0, "messages", [{"content": [{"type": "text"}]}, {}]), ""),
        (Event(0, "metadata", {"run_id": "r"}), ""),
        (Event(0, "error", {"error": "x", "content": "y"}), ""),
    ],
)
def test_only_messages_carry_text(event: Event, text: str) -> None:
    assert event.text == text


def test_only_success_is_a_good_end() -> None:
    assert succeeded(Event(0, "end", {"status": "success"}))
    assert not succeeded(Event(0, "end", {"status": "error"}))
    assert not succeeded(Event(0, "messages", {"status": "success"}))


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((BEGIN, says("w0 "), says("w1 "), END), True),
        ((BEGIN + says("w0 ") + says("w1 ") + END,), True),
        ((BEGIN, says("w0 ") + says("w1 ")[:9], says("w1 ")[9:], END), True),
        ((BEGIN, says("w0 "), END), False),
        ((BEGIN, says("w0 "), says("w1 "), says("w1 "), END), False),
        ((BEGIN, says("w0 "), says("w1 ")), False),
        ((BEGIN, says("w0 "), says("w1 "), frame("end", {"status": "error"})), False),
    ],
)
def test_a_stream_that_lacks_something_is_seen(parts: tuple[bytes, ...], whole: bool) -> None:
    assert is_whole(chunked(*parts), "w0 w1 ") is whole


def test_chunks_are_joined() -> None:
    assert dechunked(chunked(b"a\r\nb", b"c").removeprefix(HEAD)) == b"a\r\nbc"


def test_a_run_asks_for_its_messages() -> None:
    asked = orjson.loads(question("hello"))
    assert asked["stream_mode"] == ["messages-tuple"]
    assert asked["input"]["messages"] == [{"role": "user", "content": "hello"}]
