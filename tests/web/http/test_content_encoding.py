"""Compressed request bodies are read within the limits of what they decompress to."""

import asyncio
import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from models.platform.errors import InvalidRequest
from tests.web.api_client import ApiUser, assert_error
from web.http import bodies, content_encoding
from web.http.bodies import MAX_BYTES, MAX_PUBLIC_BYTES, BodyTooLarge
from web.http.content_encoding import PIECE, decoded

MEGABYTE = 1024 * 1024


def encoding(value: bytes) -> dict[str, object]:
    return {"headers": [(b"content-encoding", value)]}


def read(body: bytes, name: bytes = b"gzip", *, chunk: int = 65_536, limit: int = MAX_BYTES) -> bytes:
    """Read a body that arrives in chunks."""
    chunks = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]

    async def receive():
        part = chunks.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(chunks)}

    async def read_all() -> bytes:
        return await bodies.read({"headers": []}, decoded(encoding(name), receive, limit), limit)

    return asyncio.run(read_all())


@given(st.binary(max_size=2000) | st.integers(PIECE - 2, PIECE + 2).map(bytes), st.sampled_from([1, 7, 65_536]))
def test_a_compressed_body_is_read_unchanged(body, chunk):
    if len(body) > 2000:
        chunk = 65_536
    assert read(gzip.compress(body), b"gzip", chunk=chunk) == body
    assert read(zlib.compress(body), b"deflate", chunk=chunk) == body


@pytest.mark.parametrize("size", [PIECE, 2 * PIECE, 2 * PIECE + 1, MAX_BYTES])
@pytest.mark.parametrize("name", [b"gzip", b"X-GZip ", b"GZIP"])
def test_a_body_of_several_pieces_is_read_unchanged(size, name):
    for body in (bytes(size), random.Random(1).randbytes(size)):
        assert read(gzip.compress(body, 1), name, limit=2 * MAX_BYTES) == body


@pytest.mark.parametrize("name", [b"", b"identity"])
def test_a_body_without_encoding_is_not_touched(name):
    assert read(b"\x1f\x8b text", name) == b"\x1f\x8b text"


def test_a_request_without_a_body_may_name_an_encoding():
    assert read(b"") == b""


@pytest.mark.parametrize("name", [b"br", b"zstd", b"gzip, gzip", b"compress", b"\xff" * 5000])
def test_another_encoding_is_rejected_before_the_body_is_read(name):
    with pytest.raises(HTTPException) as error:
        decoded(encoding(name), pytest.fail, MAX_BYTES)

    assert error.value.status_code == 415
    assert error.value.headers == {"accept-encoding": "gzip, deflate"}
    assert len(error.value.detail) < 200


DAMAGED = {
    "not-compressed": b"{}",
    "without-its-last-byte": gzip.compress(b"{}")[:-1],
    "cut-in-its-data": gzip.compress(b"{}")[:12],
    "followed-by-a-byte": gzip.compress(b"{}") + b"x",
    "twice": gzip.compress(b"{}") * 2,
    "large-and-followed-by-a-byte": gzip.compress(bytes(PIECE)) + b"x",
    "with-a-wrong-checksum": gzip.compress(b"{}")[:-8] + bytes(8),
    "deflate": zlib.compress(b"{}"),
}


# The bytes hold the time of their compression: as names of tests they would differ between test processes.
@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("chunk", [1, 65_536])
def test_a_damaged_body_is_rejected(body, chunk):
    with pytest.raises(InvalidRequest) as error:
        read(body, chunk=chunk)

    assert error.value.code == "invalid_content_encoding"


def test_a_bomb_is_decompressed_up_to_the_limit_only(monkeypatch):
    # Given a gigabyte in a megabyte, and a count of what is decompressed
    block = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    bomb = b"".join([block.compress(bytes(MEGABYTE)) for _ in range(1024)] + [block.flush()])
    pieces = []
    decompress = content_encoding.DecodedBody._decompress
    monkeypatch.setattr(
        content_encoding.DecodedBody, "_decompress", lambda self: (pieces.append(decompress(self)), pieces[-1])[1]
    )

    # When it is read
    with pytest.raises(BodyTooLarge):
        read(bomb)

    # Then no more than the limit and a piece was decompressed
    assert sum(map(len, pieces)) <= MAX_BYTES + PIECE
    assert max(map(len, pieces)) <= PIECE


def test_a_body_of_empty_blocks_is_limited_by_its_own_size():
    head = gzip.compress(b"")[:10]

    with pytest.raises(BodyTooLarge):
        read(head + b"\x00\x00\x00\xff\xff" * 300_000, limit=MEGABYTE)


def test_the_whole_application_reads_compressed_bodies(user: ApiUser, api):
    def post(content: bytes, path: str = "/v1/conversations", name: str = "gzip"):
        return user.request("POST", path, content=content, headers={"content-encoding": name})

    assert post(gzip.compress(b'{"metadata": {"a": "b"}}')).json()["metadata"] == {"a": "b"}
    assert_error(post(gzip.compress(bytes(3 * MEGABYTE))), 413)
    assert_error(post(gzip.compress(bytes(70 * MEGABYTE)), "/v1/memories/import"), 413)
    assert_error(post(b"{}"), 400, code="invalid_content_encoding")
    assert "gzip" in assert_error(post(b"{}", name="br"), 415, code="unsupported_media_type")
    public = gzip.compress(b'{"email": "' + b"x" * MAX_PUBLIC_BYTES + b'"}')
    assert_error(api.post("/login", content=public, headers={"content-encoding": "gzip"}), 413)


def test_compression_does_not_lower_the_cost_of_a_request(user: ApiUser):
    # Given a limit of tokens per minute
    with user.database.connection() as connection:
        connection.execute(
            "UPDATE accounts SET limits = limits || '{\"tokens_per_minute\": 100000}' WHERE id = %s",
            (user.caller.account_id,),
        )
    body = gzip.compress(b'{"background": true, "input": "' + b"x " * 150_000 + b'"}')

    # When compressed requests are sent
    answers = [
        user.request("POST", "/v1/responses", content=body, headers={"content-encoding": "gzip"}) for _ in range(2)
    ]

    # Then they count by their decompressed size
    assert [answer.status_code for answer in answers] == [200, 429]
