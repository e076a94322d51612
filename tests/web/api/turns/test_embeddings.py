"""Given texts and a worker with a model, when they are embedded, then the official client gets a vector for each."""

import struct
from base64 import b64decode

import httpx
import openai
import pytest
from openai.types import CreateEmbeddingResponse, Model
from pydantic import TypeAdapter

from bench.harness.waiting import wait_until
from models.jobs import unclaimed_results
from models.turns.embeddings import EmbeddingResult
from pipelines.embeddings.start import enqueue_embedding
from tests.web.api_client import assert_error
from web.api.turns import embeddings as endpoint
from web.api.turns.embeddings import MAX_CHARACTERS, embedding_list

POOL = "memory"

MODEL = "all-minilm-l6-v2"


# The first two have no worker: it starts with the first test that asks for it.


def test_without_a_worker_it_is_a_503_and_the_job_is_gone(user, monkeypatch):
    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)

    answer = user.request("POST", "/v1/embeddings", json={"input": "hello"})

    assert_error(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert user.jobs() == []


def test_a_client_that_leaves_takes_its_job_along(user):
    with pytest.raises(httpx.ReadTimeout):
        user.request("POST", "/v1/embeddings", json={"input": "hello"}, timeout=0.3)

    wait_until(lambda: user.jobs() == [])


def test_the_client_gets_a_vector_a_text_and_nothing_stays_but_the_bill(client, user, database):
    made = client.embeddings.create(model=MODEL, input=["a cat sleeps", "the kitten naps", "shares fell on Monday"])

    assert [(item.index, len(item.embedding)) for item in made.data] == [(0, 384), (1, 384), (2, 384)]
    cat, kitten, shares = (item.embedding for item in made.data)
    assert dot(cat, kitten) > 0.5 > 0.2 > dot(cat, shares)
    assert (made.model, made.usage.prompt_tokens) == (MODEL, made.usage.total_tokens)
    assert user.jobs() == []
    with database.connection() as connection:
        bills = connection.execute(
            "SELECT model, input_tokens, output_tokens FROM usage_records WHERE account_id = %s",
            (user.caller.account_id,),
        ).fetchall()
    assert bills == [{"model": MODEL, "input_tokens": made.usage.prompt_tokens, "output_tokens": 0}]


def test_both_encodings_are_the_same_vectors_and_strictly_openais_shape(client, user):
    asked = {"model": "default", "input": "hello"}
    plain = user.request("POST", "/v1/embeddings", json=asked).json()
    packed = user.request("POST", "/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()

    TypeAdapter(CreateEmbeddingResponse).validate_python(plain, strict=True)
    vector = plain["data"][0]["embedding"]
    assert list(struct.unpack("<384f", b64decode(packed["data"][0]["embedding"]))) == vector
    assert dot(vector, vector) == pytest.approx(1, abs=1e-5)
    assert client.embeddings.create(**asked, encoding_format="float").data[0].embedding == vector
    assert client.embeddings.create(**asked, dimensions=384).data[0].embedding == pytest.approx(vector)


def test_more_texts_than_a_batch_keep_their_order(client):
    words = ["cat", "stock market", "bicycle"]
    alone = [client.embeddings.create(model=MODEL, input=word).data[0].embedding for word in words]

    together = client.embeddings.create(model=MODEL, input=words * 25)

    assert len(together.data) == 75
    assert all(dot(item.embedding, alone[item.index % 3]) > 0.999 for item in together.data)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": ["short", "word " * 600]}, "input"),
        ({"input": "hello", "dimensions": 256}, "dimensions"),
    ],
)
def test_what_only_the_model_can_tell_is_refused_by_name(client, user, asked, param):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(model=MODEL, **asked)

    assert wrong.value.param == param
    assert "index 1" in str(wrong.value) or param == "dimensions"
    assert user.jobs() == []


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": ["a" * (MAX_CHARACTERS // 2 + 1)] * 2}, "input"),
        ({"input": "a", "model": "scripted"}, "model"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "unknown": 1}, "unknown"),
    ],
)
def test_what_is_wrong_is_named(user, asked, param):
    answer = user.request("POST", "/v1/embeddings", json=asked)

    assert_error(answer, 400, param=param)
    assert user.jobs() == []


def test_the_models_are_listed_in_openais_shape(user):
    shown = user.request("GET", "/v1/models").json()["data"]

    assert [model["id"] for model in shown] == ["scripted", "default", MODEL]
    for model in shown:
        TypeAdapter(Model).validate_python(model, strict=True)
    assert user.request("GET", f"/v1/models/{MODEL}").json() in shown


def test_a_text_that_goes_unread_is_forgotten(user, worker, database):
    """As after a web process that died: its client comes no more."""
    job_id = "job_unread_" + user.caller.account_id
    enqueue_embedding(database, user.caller, ["hello"], None, job_id)
    enqueue_embedding(database, user.caller, ["hello"], None, job_id)  # a request that came twice
    user.client.app.state.platform.queue.nudge()
    wait_until(lambda: user.jobs()[0]["state"] == "completed")

    with database.connection() as connection:
        assert job_id not in unclaimed_results.delete_unclaimed(connection)
        assert job_id in unclaimed_results.delete_unclaimed(connection, kept=0)
    assert user.jobs() == []


def test_vectors_are_written_exactly():
    made = EmbeddingResult(MODEL, [struct.pack("<2f", 0.5, -0.25), struct.pack("<2f", 1, 0)], 7)

    assert [item["embedding"] for item in embedding_list(made, "float")["data"]] == [[0.5, -0.25], [1.0, 0.0]]
    assert embedding_list(made, "base64")["data"][1]["embedding"] == "AACAPwAAAAA="


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))
