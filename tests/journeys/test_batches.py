"""The unmodified official client runs batches: it uploads requests, waits, and reads the answers and the errors."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch, Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import TypeAdapter

from bench.harness.stack import LIGHT_POOLS, Servers
from bench.harness.waiting import wait_until
from tests.journeys.responses import TEXT
from tests.journeys.stack import AccountOwner, Installation, installation_with, openai_client
from tests.s3 import S3Service
from tests.web.batch_inputs import jsonl, request_line

RESPONSES, CHAT, TEXTS, EMBEDDINGS = "/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HELLO = [{"role": "user", "content": "hello"}]

FINAL = ("completed", "failed", "expired", "cancelled")


@contextmanager
def object_store(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of the object store that a test is to use."""
    if request.param == "folder":
        yield {}
        return
    service: S3Service = request.getfixturevalue("s3")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in service.environment.items():
            environment.setenv(name, value)
        yield {"object_store": service.location}


@pytest.fixture(scope="module", params=["folder", "s3"])
def batch_installation(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Installation]:
    """An installation with all workers that batches need, whose files are in a folder or in S3."""
    with installation_with(servers, "batches", lambda _: object_store(request)) as installation:
        installation.start_web()
        installation.start_scheduler()
        installation.start_worker("tokens=20,rate=0", "inference", *LIGHT_POOLS)
        yield installation


@pytest.fixture
def client(batch_installation: Installation) -> Iterator[OpenAI]:
    """The official client with a new account."""
    with openai_client(batch_installation, AccountOwner(batch_installation)) as client:
        yield client


def upload(client: OpenAI, content: bytes) -> str:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert (file.purpose, file.bytes) == ("batch", len(content))
    return file.id


def run(client: OpenAI, endpoint: str, content: bytes, **options) -> Batch:
    """Run a batch to its end."""
    batch = client.batches.create(
        input_file_id=upload(client, content), endpoint=endpoint, completion_window="24h", **options
    )
    assert batch.status == "validating"
    return wait_for_end(client, batch.id)


def wait_for_end(client: OpenAI, batch_id: str) -> Batch:
    return wait_until(
        lambda: batch if (batch := client.batches.retrieve(batch_id)).status in FINAL else None,
        120,
        interval=0.1,
        what="the end of the batch",
    )


def lines_of(client: OpenAI, file_id: str | None) -> list[dict]:
    """Return the lines of a result file."""
    if file_id is None:
        return []
    content = client.files.content(file_id).text
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize(
    ("endpoint", "body", "type_", "text"),
    [
        (RESPONSES, {"input": "hello"}, Response, lambda each: each.output_text),
        (CHAT, {"messages": HELLO}, ChatCompletion, lambda each: each.choices[0].message.content),
        (CHAT, {"messages": HELLO, "n": 2}, ChatCompletion, lambda each: each.choices[1].message.content),
        (TEXTS, {"prompt": "hello", "max_tokens": 20}, Completion, lambda each: each.choices[0].text),
    ],
)
def test_every_request_is_answered_in_the_order_of_the_file(client, endpoint, body, type_, text):
    content = jsonl(request_line(n, endpoint, model="default", **body) for n in range(30))

    batch = run(client, endpoint, content, metadata={"topic": "words"})

    assert (batch.status, batch.errors, batch.error_file_id) == ("completed", None, None)
    assert batch.metadata == {"topic": "words"}
    assert batch.request_counts.model_dump() == {"total": 30, "completed": 30, "failed": 0}
    lines = lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"request-{n}" for n in range(30)]
    assert {(line["response"]["status_code"], line["error"]) for line in lines} == {(200, None)}
    assert len({line["id"] for line in lines}) == 30
    for line in lines:
        assert text(type_.model_validate(line["response"]["body"])) == TEXT


def test_texts_are_embedded(client):
    body = {"model": "default", "input": ["a cat", "a dog"], "encoding_format": "float"}

    batch = run(client, EMBEDDINGS, jsonl(request_line(n, EMBEDDINGS, **body) for n in range(3)))

    lines = lines_of(client, batch.output_file_id)
    assert batch.request_counts.completed == 3
    for line in lines:
        embeddings = TypeAdapter(CreateEmbeddingResponse).validate_python(line["response"]["body"])
        assert [len(item.embedding) for item in embeddings.data] == [384, 384]


def test_requests_read_files(client):
    file = client.files.create(file=("notes.txt", b"three words here"), purpose="user_data")
    lines = [
        request_line(n, input=[{"role": "user", "content": [{"type": "input_file", "file_id": file_id}]}])
        for n, file_id in enumerate([file.id, "file_none"])
    ]

    batch = run(client, RESPONSES, jsonl(lines))

    (answered,), (refused,) = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert answered["response"]["body"]["usage"]["input_tokens"] == 6
    assert refused["response"]["status_code"] == 404
    assert refused["response"]["body"]["error"]["param"] == "input[0].content[0].file_id"


def test_a_rejected_request_is_in_the_error_file_with_its_status(client):
    lines = [
        request_line(0),
        request_line(1, input="x", model="agent/nobody"),
        request_line(2, input="x", temperature=3),
        request_line(3, input="x", conversation="conv_1"),
        request_line(4),
    ]

    batch = run(client, RESPONSES, jsonl(lines))

    assert batch.status == "completed"
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 2, "failed": 3}
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["request-0", "request-4"]
    errors = lines_of(client, batch.error_file_id)
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [
        ("request-1", 404), ("request-2", 400), ("request-3", 400)
    ]  # fmt: skip
    assert [line["response"]["body"]["error"]["param"] for line in errors] == ["model", "temperature", "conversation"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", None),
        (b"\xff\xfe\n", 1),
        (jsonl([request_line(0)]) + b"{'custom_id': 1}\n", 2),
        (jsonl([request_line(0)]) + b'{"custom_id":"x"}\n', 2),
        (jsonl([request_line(0), request_line(0)]), 2),
        (jsonl([request_line(0), request_line(1, CHAT, messages=HELLO)]), 2),
        (jsonl([{**request_line(0), "method": "GET"}]), 1),
        (jsonl([request_line(0), request_line(1, model="gpt-4o", input="x")]), 2),
        (jsonl([request_line(0), request_line(1, input="x", stream=True)]), 2),
        (b"x\n" * 50_000, 1),
    ],
    ids=[
        "empty",
        "no UTF-8",
        "no JSON",
        "no request",
        "same id",
        "other endpoint",
        "other method",
        "unknown model",
        "stream",
        "one byte a line",
    ],
)
def test_an_invalid_file_fails_the_batch_with_the_line(client, content, line):
    batch = run(client, RESPONSES, content)

    assert (batch.status, batch.output_file_id, batch.request_counts.completed) == ("failed", None, 0)
    assert batch.errors.data[0].line == line
    assert batch.errors.data[0].message
    assert len(batch.errors.data) <= 100


def test_a_batch_is_cancelled_and_keeps_what_was_answered(client):
    content = jsonl(request_line(n, model="default", input="hello") for n in range(2000))
    batch = client.batches.create(input_file_id=upload(client, content), endpoint=RESPONSES, completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed, 60, what="the first answer")

    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")

    ended = wait_for_end(client, batch.id)
    assert ended.status == "cancelled"
    assert ended.request_counts.total == 2000
    assert 0 < len(lines_of(client, ended.output_file_id)) == ended.request_counts.completed < 2000


def test_batches_are_listed_by_the_clients_pages(client):
    file_id = upload(client, jsonl([request_line()]))
    ids = [
        client.batches.create(input_file_id=file_id, endpoint=RESPONSES, completion_window="24h").id for _ in range(3)
    ]

    assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]


def test_the_files_of_another_account_cannot_be_read(client, batch_installation):
    batch = run(client, RESPONSES, jsonl([request_line()]))

    with openai_client(batch_installation, AccountOwner(batch_installation)) as other:
        for file_id in (batch.input_file_id, batch.output_file_id):
            with pytest.raises(openai.NotFoundError):
                other.files.content(file_id)
            with pytest.raises(openai.NotFoundError):
                other.batches.create(input_file_id=file_id, endpoint=RESPONSES, completion_window="24h")
        with pytest.raises(openai.NotFoundError):
            other.batches.retrieve(batch.id)
