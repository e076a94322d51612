"""Clients that time out and send retries while a worker answers, at each phase of a turn, with OpenAI's client."""

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI

from bench.harness.waiting import wait_until
from models.journal.archive import read_archive
from models.turns import abandoned_turns
from tests.web.worker_process import run_worker

#: A turn that contains `hang` stops before its first token, as in a long prompt; others last for two seconds.
SCRIPT = "tokens=20,rate=10,hang_at=0,trigger=hang"
TEXT = "".join(f"w{index} " for index in range(20))
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module", autouse=True)
def worker(settings, tmp_path_factory):
    """A worker process with the script."""
    with run_worker(settings, ["inference"], tmp_path_factory.mktemp("inference"), SCRIPT):
        yield


@pytest.fixture
def impatient(user):
    """OpenAI's client, which waits for a second and sends up to three retries."""
    return OpenAI(base_url=f"{user.client.base_url}/v1", api_key=user.token, max_retries=3, timeout=1)


def turns_of(user):
    return [job for job in user.jobs() if job["kind"] == "turn.run"]


def usage_of(database, job_id):
    with database.connection() as connection:
        return connection.execute(
            "SELECT input_tokens, output_tokens, (SELECT tokens FROM quota_usage"
            " WHERE account_id = usage_records.account_id) AS month FROM usage_records WHERE job_id = %s",
            (job_id,),
        ).fetchone()


def is_abandoned(database, job_id):
    with database.connection() as connection:
        return job_id in abandoned_turns.list_abandoned(connection)


@pytest.mark.parametrize("surface", ["chat", "responses", "stored responses"])
def test_a_client_whose_requests_time_out_gets_the_answer_of_one_turn(impatient, user, database, surface):
    # Given turns of two seconds and a client that gives up after one
    if surface == "chat":
        answer = impatient.chat.completions.create(model="default", messages=HELLO).choices[0].message.content
    else:
        answer = impatient.responses.create(model="default", input="hello", store=surface != "responses").output_text

    # Then a retry has got the answer of the original request
    assert answer == TEXT
    if surface == "stored responses":
        assert len(turns_of(user)) == 1
    else:
        wait_until(lambda: not turns_of(user))  # deleted once they were read
    with database.connection() as connection:
        billed = connection.execute(
            "SELECT output_tokens FROM usage_records WHERE account_id = %s", (user.caller.account_id,)
        ).fetchall()
    assert [record["output_tokens"] for record in billed] == [20]


def test_a_retry_after_the_end_of_a_turn_gets_its_answer(impatient, user, database):
    # Given a turn that ended after its client had given up
    with pytest.raises(openai.APITimeoutError):
        impatient.with_options(max_retries=0).chat.completions.create(model="default", messages=HELLO)
    (job,) = turns_of(user)
    wait_until(lambda: user.request("GET", f"/v1/jobs/{job['id']}").json()["state"] == "completed")

    # When the client sends it again
    answer = impatient.chat.completions.with_raw_response.create(model="default", messages=HELLO)

    # Then it gets that answer
    assert answer.headers["x-sangha-job-id"] == job["id"]
    assert answer.parse().choices[0].message.content == TEXT


def test_a_retry_of_a_stream_begins_at_its_first_token(impatient, user, database):
    # Given a client that disconnects from a stream after some tokens
    stream = impatient.chat.completions.create(model="default", messages=HELLO, stream=True)
    read = [chunk.choices[0].delta.content for _, chunk in zip(range(4), stream, strict=False)]
    stream.close()
    (job,) = turns_of(user)
    wait_until(lambda: is_abandoned(database, job["id"]))

    # When it sends the request again
    again = impatient.chat.completions.create(model="default", messages=HELLO, stream=True)

    # Then it reads the whole answer of the same turn
    text = "".join(chunk.choices[0].delta.content or "" for chunk in again)
    assert (text, "".join(read) in text) == (TEXT, True)
    assert {turn["id"] for turn in turns_of(user)} <= {job["id"]}  # it is deleted once it was read


@pytest.mark.parametrize("phase", ["prompt", "tokens"])
def test_an_abandoned_turn_frees_its_slot_and_bills_what_is_journalled(impatient, user, database, end_grace, phase):
    # Given a client that disconnects while the prompt is read, or in the middle of the answer
    messages = [{"role": "user", "content": "hang" if phase == "prompt" else "hello"}]
    stream = impatient.chat.completions.create(model="default", messages=messages, stream=True)
    for _ in zip(range(1 if phase == "prompt" else 5), stream, strict=False):
        pass
    (job,) = turns_of(user)
    wait_until(lambda: user.request("GET", f"/v1/jobs/{job['id']}").json()["state"] == "running")
    stream.close()
    wait_until(lambda: is_abandoned(database, job["id"]))

    # When its grace is over
    end_grace()

    # Then it is cancelled
    wait_until(lambda: user.request("GET", f"/v1/jobs/{job['id']}").json()["state"] == "cancelled")
    usage = usage_of(database, job["id"])
    with database.connection() as connection:
        journalled = sum(event.tokens for event in read_archive(connection, job["id"]).events)
    assert usage["output_tokens"] == journalled
    assert (journalled > 0) == (phase == "tokens")
    assert usage["month"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens"] < 20


def test_identical_requests_of_patient_clients_are_turns_of_their_own(user):
    client = OpenAI(base_url=f"{user.client.base_url}/v1", api_key=user.token, max_retries=0, timeout=30)

    def ask(_):
        return client.chat.completions.with_raw_response.create(model="default", messages=HELLO)

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, range(3)))

    assert len({answer.headers["x-sangha-job-id"] for answer in answers}) == 3
