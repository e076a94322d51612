"""The official client runs a batch on a real model.

In a module of its own: installations share the queues of their broker, so that only one may have workers at a time.
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from openai import OpenAI

from bench.harness.stack import LIGHT_POOLS, Servers
from tests.journeys.stack import installation_with
from tests.journeys.test_batches import CHAT, HELLO, AccountOwner, jsonl, lines_of, openai_client, request_line, run


@pytest.fixture
def real_client(servers: Servers) -> Iterator[OpenAI]:
    """The official client of an installation with the bundled model in llama.cpp."""
    with installation_with(servers, "batches", lambda _: nullcontext({"engine": "llamacpp", "context": 512})) as real:
        real.start_web()
        real.start_scheduler()
        real.start_worker("", "inference", *LIGHT_POOLS)
        with openai_client(real, AccountOwner(real)) as client:
            yield client


def test_a_model_in_llamacpp_answers_a_batch(real_client):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    format_ = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    ask = {"model": "default", "messages": HELLO, "temperature": 0}
    content = jsonl(
        [
            request_line(0, CHAT, **ask, max_tokens=8),
            request_line(1, CHAT, **ask, max_tokens=8, n=2, seed=1),
            request_line(2, CHAT, **ask, max_tokens=32, response_format=format_),
            request_line(3, CHAT, model="default", messages=[{"role": "user", "content": "word " * 2000}]),
        ]
    )

    batch = run(real_client, CHAT, content)

    answers = {line["custom_id"]: line["response"]["body"] for line in lines_of(real_client, batch.output_file_id)}
    assert [*answers] == ["request-0", "request-1", "request-2"]
    assert answers["request-0"]["choices"][0]["message"]["content"]
    assert [choice["index"] for choice in answers["request-1"]["choices"]] == [0, 1]
    assert isinstance(json.loads(answers["request-2"]["choices"][0]["message"]["content"])["ok"], bool)
    [error] = lines_of(real_client, batch.error_file_id)
    assert (error["custom_id"], error["response"]["status_code"]) == ("request-3", 400)
    assert error["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert batch.usage.output_tokens >= 24
