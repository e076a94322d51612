"""Chat completions with several choices: each is a turn that is billed, and they begin, fail and end together."""

import itertools
import threading

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from bench.harness.waiting import wait_until
from tests.web.api_client import assert_error
from tests.web.worker_process import run_worker

HELLO = [{"role": "user", "content": "hello there"}]
TEXT = "".join(f"w{index} " for index in range(20))
BODY = {"messages": HELLO, "n": 3}


# The first tests need that no worker runs: it starts with the first test that uses it.


@pytest.fixture(scope="module")
def worker(settings, tmp_path_factory):
    """A worker whose answers take a moment."""
    with run_worker(settings, ["inference"], tmp_path_factory.mktemp("inference"), "tokens=20,rate=100"):
        yield


@pytest.fixture
def client(user, worker):
    """OpenAI's client."""
    return OpenAI(base_url=f"{user.client.base_url}/v1", api_key=user.token, max_retries=0, timeout=30)


def turns_of(user):
    return [job for job in user.jobs() if job["kind"] == "turn.run"]


def billed(database, user):
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT input_tokens, output_tokens FROM usage_records WHERE account_id = %s", (user.caller.account_id,)
        ).fetchall()
    return [(row["input_tokens"], row["output_tokens"]) for row in rows]


def limit(database, user, **limits):
    with database.connection() as connection:
        connection.execute(
            "UPDATE accounts SET limits = limits || %s::jsonb WHERE id = %s",
            (httpx.Request("POST", "http://x", json=limits).content.decode(), user.caller.account_id),
        )


@pytest.mark.parametrize("header", ["cancel", None])
def test_a_disconnect_cancels_or_abandons_all_choices(user, database, header):
    headers = {"authorization": f"Bearer {user.token}", **({"x-sangha-on-disconnect": header} if header else {})}
    with httpx.Client(base_url=user.client.base_url, timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=BODY, headers=headers)

    job_ids = {job["id"] for job in turns_of(user)}
    assert len(job_ids) == 3

    def all_cancelled_or_abandoned():
        if header:
            return all(job["state"] == "cancelled" for job in turns_of(user))
        with database.connection() as connection:
            rows = connection.execute("SELECT job_id FROM abandoned_turns").fetchall()
        return job_ids <= {row["job_id"] for row in rows}

    wait_until(all_cancelled_or_abandoned)


def test_a_choice_beyond_the_limit_refuses_all(user, database):
    limit(database, user, unfinished_jobs=2)

    answer = user.request("POST", "/v1/chat/completions", json=BODY)

    assert_error(answer, 429, code="too_many_jobs")
    assert turns_of(user) == []


def test_a_choice_that_is_cancelled_ends_the_others(user):
    # Given a request with three choices
    answers = []
    request = threading.Thread(target=lambda: answers.append(user.request("POST", "/v1/chat/completions", json=BODY)))
    request.start()
    jobs = wait_until(lambda: jobs if len(jobs := turns_of(user)) == 3 else None)

    # When one of them is cancelled
    user.request("POST", f"/v1/jobs/{jobs[1]['id']}/cancel")
    request.join(20)

    # Then the others are, too
    assert_error(answers[0], 409, code="cancelled")
    wait_until(lambda: {job["state"] for job in turns_of(user)} <= {"cancelled"})


@pytest.mark.parametrize(
    ("n", "best_of", "param"), [(0, None, "n"), (9, None, "n"), (2, 3, "best_of"), (1, 2, "best_of")]
)
def test_a_number_of_choices_that_is_not_supported_is_refused(user, n, best_of, param):
    answer = user.request("POST", "/v1/chat/completions", json={**BODY, "n": n, "best_of": best_of})

    assert_error(answer, 400, param=param)


def test_several_choices_are_not_stored(user):
    assert_error(user.request("POST", "/v1/chat/completions", json={**BODY, "store": True}), 400, param="n")


@pytest.mark.parametrize("best_of", [None, 1, 3])
def test_each_choice_is_an_answer_that_is_billed(client, user, database, best_of):
    answer = client.chat.completions.with_raw_response.create(
        model="default", messages=HELLO, n=3, extra_body={"best_of": best_of}
    )
    completion = answer.parse()

    TypeAdapter(ChatCompletion).validate_python(answer.http_response.json(), strict=True)
    assert [(choice.index, choice.message.content) for choice in completion.choices] == [(i, TEXT) for i in range(3)]
    assert len(answer.headers["x-sangha-job-id"].split(", ")) == 3
    assert billed(database, user) == [(2, 20)] * 3
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (
        6, 60, 66,
    )  # fmt: skip
    wait_until(lambda: turns_of(user) == [])


def test_the_choices_of_a_stream_are_interleaved(client):
    chunks = list(client.chat.completions.create(
        model="default", messages=HELLO, n=3, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip

    for chunk in chunks:
        TypeAdapter(ChatCompletionChunk).validate_python(chunk.model_dump(), strict=True)
    pieces = [(choice.index, choice.delta.content) for chunk in chunks for choice in chunk.choices]
    assert ["".join(text or "" for index, text in pieces if index == i) for i in range(3)] == [TEXT] * 3
    switches = sum(before[0] != after[0] for before, after in itertools.pairwise(pieces))
    assert switches > 6
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens == 60
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_repeated_idempotency_key_returns_the_same_choices(client, user):
    first, second = (
        client.chat.completions.create(model="default", messages=HELLO, n=2, extra_headers={"Idempotency-Key": "same"})
        for _ in range(2)
    )

    assert first == second
    assert len(turns_of(user)) == 2


def test_the_error_of_a_choice_is_the_error_of_the_completion(client, user):
    long_messages = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as plain:
        client.chat.completions.create(model="default", messages=long_messages, n=2)
    with pytest.raises(openai.APIError) as streamed:
        list(client.chat.completions.create(model="default", messages=long_messages, n=2, stream=True))

    assert (plain.value.code, streamed.value.code) == ("context_length_exceeded", "context_length_exceeded")
    wait_until(lambda: {job["state"] for job in turns_of(user)} <= {"cancelled", "failed"})
