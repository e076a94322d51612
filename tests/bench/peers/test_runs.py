"""The peer's streams: parsed as its own client parses them, and incomplete ones detected."""

import orjson
import pytest

from bench.peers.runs import PeerEvent, dechunk, is_complete, parse_frame, run_body

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(type_: str, data: object, id_: str = "run_event_1") -> bytes:
    return b"event: %b\ndata: %b\nid: %b\n\n" % (type_.encode(), orjson.dumps(data), id_.encode())


def message(text: str) -> bytes:
    return frame("messages", [{"type": "AIMessageChunk", "content": text}, {"langgraph_node": "answer"}])


def chunked(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


END = frame("end", {"status": "success"})
BEGIN = frame("metadata", {"run_id": "r", "attempt": 1})


def test_a_frame_is_an_event() -> None:
    assert parse_frame(3, message("w0 ").strip()) == PeerEvent(
        3, "messages", [{"type": "AIMessageChunk", "content": "w0 "}, {"langgraph_node": "answer"}]
    )
    assert parse_frame(3, b": heartbeat") is None
    assert parse_frame(3, b"id: 7\ndata: \nevent: end") == PeerEvent(3, "end", None)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (PeerEvent(0, "messages", [{"content": "w0 "}, {}]), "w0 "),
        (PeerEvent(0, "messages", [{"content": [{"type": "text"}]}, {}]), ""),
        (PeerEvent(0, "metadata", {"run_id": "r"}), ""),
        (PeerEvent(0, "error", {"error": "x", "content": "y"}), ""),
    ],
)
def test_only_messages_carry_text(event: PeerEvent, text: str) -> None:
    assert event.text == text


def test_only_an_end_with_success_is_a_success() -> None:
    assert PeerEvent(0, "end", {"status": "success"}).succeeded
    assert not PeerEvent(0, "end", {"status": "error"}).succeeded
    assert not PeerEvent(0, "messages", {"status": "success"}).succeeded


@pytest.mark.parametrize(
    ("parts", "complete"),
    [
        ((BEGIN, message("w0 "), message("w1 "), END), True),
        ((BEGIN + message("w0 ") + message("w1 ") + END,), True),
        ((BEGIN, message("w0 ") + message("w1 ")[:9], message("w1 ")[9:], END), True),
        ((BEGIN, message("w0 "), END), False),
        ((BEGIN, message("w0 "), message("w1 "), message("w1 "), END), False),
        ((BEGIN, message("w0 "), message("w1 ")), False),
        ((BEGIN, message("w0 "), message("w1 "), frame("end", {"status": "error"})), False),
    ],
)
def test_an_incomplete_stream_is_detected(parts: tuple[bytes, ...], complete: bool) -> None:
    assert is_complete(chunked(*parts), "w0 w1 ") is complete


def test_chunks_are_joined() -> None:
    assert dechunk(chunked(b"a\r\nb", b"c").removeprefix(HEAD)) == b"a\r\nbc"


def test_a_run_requests_its_messages() -> None:
    body = orjson.loads(run_body("hello"))
    assert body["stream_mode"] == ["messages-tuple"]
    assert body["input"]["messages"] == [{"role": "user", "content": "hello"}]
