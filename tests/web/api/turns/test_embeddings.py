"""`/v1/embeddings` with OpenAI's client and a real worker."""

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
from pipelines.embeddings.enqueue_embedding import enqueue_embedding
from pipelines.requests.embeddings import MAX_CHARACTERS, embedding_list
from tests.web.api_client import assert_error
from web.api.turns import embeddings as endpoint

POOL = "memory"

MODEL = "all-minilm-l6-v2"


# The first two tests need that no worker runs: the worker starts with the first test that uses it.


def test_without_a_worker_the_answer_is_a_503_and_the_job_is_deleted(user, monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.05)

    answer = user.request("POST", "/v1/embeddings", json={"input": "hello"})

    assert_error(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert user.jobs() == []


def test_the_job_of_a_disconnected_client_is_deleted(user):
    with pytest.raises(httpx.ReadTimeout):
        user.request("POST", "/v1/embeddings", json={"input": "hello"}, timeout=0.3)

    wait_until(lambda: user.jobs() == [])


@pytest.mark.parametrize(
    ("parameters", "status", "message"),
    [
        ({"input": []}, 400, "at least 1 item"),
        ({"input": [1, 2]}, 400, "token ids are not supported"),
        ({"input": "a", "model": "scripted"}, 404, "does not exist"),
    ],
)
def test_an_invalid_request_names_what_is_wrong(user, parameters, status, message):
    answer = user.request("POST", "/v1/embeddings", json=parameters)

    assert message in assert_error(answer, status)


def test_each_text_gets_a_vector_and_only_the_usage_record_is_kept(client, user, database):
    result = client.embeddings.create(model=MODEL, input=["a cat sleeps", "the kitten naps", "shares fell on Monday"])

    assert [(item.index, len(item.embedding)) for item in result.data] == [(0, 384), (1, 384), (2, 384)]
    cat, kitten, shares = (item.embedding for item in result.data)
    assert dot(cat, kitten) > 0.5 > 0.2 > dot(cat, shares)
    assert (result.model, result.usage.prompt_tokens) == (MODEL, result.usage.total_tokens)
    assert user.jobs() == []
    with database.connection() as connection:
        usage_records = connection.execute(
            "SELECT model, input_tokens, output_tokens FROM usage_records WHERE account_id = %s",
            (user.caller.account_id,),
        ).fetchall()
    assert usage_records == [{"model": MODEL, "input_tokens": result.usage.prompt_tokens, "output_tokens": 0}]


def test_both_encodings_have_the_same_vectors_and_openais_shape(client, user):
    body = {"model": "default", "input": "hello"}
    plain = user.request("POST", "/v1/embeddings", json=body).json()
    encoded = user.request("POST", "/v1/embeddings", json={**body, "encoding_format": "base64"}).json()

    TypeAdapter(CreateEmbeddingResponse).validate_python(plain, strict=True)
    vector = plain["data"][0]["embedding"]
    assert list(struct.unpack("<384f", b64decode(encoded["data"][0]["embedding"]))) == vector
    assert dot(vector, vector) == pytest.approx(1, abs=1e-5)
    assert client.embeddings.create(**body, encoding_format="float").data[0].embedding == vector
    assert client.embeddings.create(**body, dimensions=384).data[0].embedding == pytest.approx(vector)


def test_several_batches_of_texts_keep_their_order(client):
    words = ["cat", "stock market", "bicycle"]
    single = [client.embeddings.create(model=MODEL, input=word).data[0].embedding for word in words]

    combined = client.embeddings.create(model=MODEL, input=words * 25)

    assert len(combined.data) == 75
    assert all(dot(item.embedding, single[item.index % 3]) > 0.999 for item in combined.data)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ["short", "word " * 600]}, "input"),
        ({"input": "hello", "dimensions": 256}, "dimensions"),
    ],
)
def test_limits_of_the_model_are_rejected_by_parameter(client, user, body, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=MODEL, **body)

    assert error.value.param == param
    assert "index 1" in str(error.value) or param == "dimensions"
    assert user.jobs() == []


@pytest.mark.parametrize(
    ("body", "param"),
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
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(user, body, param):
    answer = user.request("POST", "/v1/embeddings", json=body)

    assert_error(answer, 400, param=param)
    assert user.jobs() == []


def test_the_embedding_model_is_listed(user):
    models = user.request("GET", "/v1/models").json()["data"]

    assert [model["id"] for model in models] == ["scripted", "default", MODEL]
    for model in models:
        TypeAdapter(Model).validate_python(model, strict=True)
    assert user.request("GET", f"/v1/models/{MODEL}").json() in models


def test_an_unclaimed_result_is_deleted(user, worker, database):
    """As after a crash of the web process, whose client does not return."""
    job_id = "job_unread_" + user.caller.account_id
    enqueue_embedding(database, user.caller, ["hello"], None, job_id)
    enqueue_embedding(database, user.caller, ["hello"], None, job_id)  # a repeated request
    user.client.app.state.platform.queue.nudge()
    wait_until(lambda: user.jobs()[0]["state"] == "completed")

    with database.connection() as connection:
        assert job_id not in unclaimed_results.delete_unclaimed(connection)
        assert job_id in unclaimed_results.delete_unclaimed(connection, kept=0)
    assert user.jobs() == []


def test_vectors_are_encoded_exactly():
    result = EmbeddingResult(MODEL, [struct.pack("<2f", 0.5, -0.25), struct.pack("<2f", 1, 0)], 7)

    assert [item["embedding"] for item in embedding_list(result, "float")["data"]] == [[0.5, -0.25], [1.0, 0.0]]
    assert embedding_list(result, "base64")["data"][1]["embedding"] == "AACAPwAAAAA="


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))
