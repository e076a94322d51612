"""A streamed answer is complete, without repeats and billed once when a worker or a web process is killed."""

import signal
import threading
import time

import httpx
import openai
import pytest
from openai import OpenAI

from bench.harness.sse import DELTA
from bench.harness.waiting import wait_until
from models.accounts.accounts import Caller, Role
from pipelines.chat.new_turn import NewTurn
from pipelines.chat.start_turn import new_turn_ids, start_turn
from pipelines.chat.transcript import ANSWER_RESTARTED
from pipelines.requests.serving import Serving
from pipelines.requests.turn_request import CreateResponse, new_turn
from tests.journeys.answers import SCRIPT, TEXT, TOKENS, assert_complete, attempts, fault
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, record_time


def test_answer_survives_a_killed_worker(stack: Installation, user: AccountOwner):
    stack.start_workers(2, SCRIPT)
    follower = user.stream()

    with fault("kill -9 a worker", stack, follower):
        runner = stack.runner(follower.job_id)
        runner.kill()
        if stack.broker == "redis":  # RabbitMQ redelivers by itself; with Redis the supervisor releases the job
            stack.release_jobs(runner)

    assert_complete(stack, user, follower)
    assert attempts(stack, follower) == (2, 1)


@ON_REDIS
def test_answer_survives_a_killed_worker_without_a_supervisor(stack: Installation, user: AccountOwner):
    stack.start_workers(2, SCRIPT)
    follower = user.stream()

    with fault("kill -9 a worker, lease just over", stack, follower):
        stack.runner(follower.job_id).kill()
        stack.rows(
            "UPDATE workers SET seen_at = now() - interval '1 minute' FROM jobs"
            " WHERE jobs.id = %s AND workers.name = jobs.worker RETURNING name",
            follower.job_id,
        )

    assert_complete(stack, user, follower)


@ON_REDIS
def test_answer_survives_several_killed_workers(stack: Installation, user: AccountOwner):
    """Each attempt continues exactly where the previous one was killed."""
    stack.start_workers(3, SCRIPT)
    follower = user.stream()

    for deltas in (10, 25):
        follower.wait_for_events(deltas=deltas)
        runner = stack.runner(follower.job_id)
        runner.kill()
        stack.release_jobs(runner)
        wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE id = %s AND state = 'running'", follower.job_id))

    assert_complete(stack, user, follower)
    assert attempts(stack, follower) == (3, 2)


def test_answer_survives_a_stopped_worker(stack: Installation, user: AccountOwner):
    stack.start_workers(2, SCRIPT)
    follower = user.stream()

    with fault("TERM to a worker", stack, follower):
        assert stack.runner(follower.job_id).stop() == 0

    assert_complete(stack, user, follower)
    assert attempts(stack, follower) == (2, 0)


@ON_REDIS
def test_engine_that_cannot_continue_restarts_the_answer_with_an_event(stack: Installation, user: AccountOwner):
    stack.start_workers(2, f"{SCRIPT},restarts=1")
    follower = user.stream()

    with fault("kill -9 a worker, restarting engine", stack, follower):
        runner = stack.runner(follower.job_id)
        runner.kill()
        stack.release_jobs(runner)

    assert_complete(stack, user, follower)
    assert follower.types.count(ANSWER_RESTARTED) == 1


@ON_REDIS
def test_a_client_of_openais_types_gets_an_error_instead_of_a_second_answer(stack: Installation, user: AccountOwner):
    # Given an engine that begins an answer again, and OpenAI's client, which follows it beside another one
    stack.start_workers(2, f"tokens={TOKENS},rate=15,restarts=1")  # slow: a busy machine opens the client in seconds
    follower = user.stream()
    with OpenAI(base_url=f"{stack.addresses()[0]}/v1", api_key=user.token, timeout=60, max_retries=0) as client:
        follower.wait_for_events(deltas=2)
        events = client.responses.retrieve(follower.response_id, stream=True)
        wait_until(lambda: next(events).type == DELTA)

        # When the worker is killed
        runner = stack.runner(follower.job_id)
        runner.kill()
        stack.release_jobs(runner)

        # Then the client's stream ends with an error, and the answer can be streamed from its beginning
        with pytest.raises(openai.APIError, match="was restarted"):
            list(events)
        follower.end()
        with client.responses.stream(response_id=follower.response_id, starting_after=-1) as stream:
            assert stream.get_final_response().output_text == TEXT


@ON_REDIS
def test_stream_resumes_after_a_killed_web_process(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 web", stack, follower):
        stack.children["web-a"].kill()

    assert_complete(stack, user, follower)
    assert (follower.connections, follower.clean_ends) == (2, 1)


@ON_REDIS
def test_an_unstored_turn_of_a_killed_web_process_is_cancelled(stack: Installation, user: AccountOwner):
    # Given a chat completion that would last for minutes
    stack.start_worker("tokens=4000,rate=20")
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
    url = f"http://127.0.0.1:{stack.children['web-a'].service.settings.port}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=user.headers, timeout=60) as answer:
        job_id = answer.headers["x-sangha-job-id"]
        next(answer.iter_lines())

        # When the web process of its client is killed
        stack.children["web-a"].kill()

    # Then its lease expires and the turn is cancelled
    wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE id = %s AND state = 'cancelled'", job_id), timeout=60)


@ON_REDIS
def test_stream_resumes_after_a_stopped_web_process(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("TERM to web", stack, follower):
        assert stack.children["web-a"].stop() == 0

    assert_complete(stack, user, follower)
    assert (follower.connections, follower.clean_ends) == (2, 2)


@ON_REDIS
def test_stopping_web_process_answers_a_waiting_request_with_the_unfinished_response(
    stack: Installation, user: AccountOwner
):
    stack.start_worker(f"tokens={TOKENS},rate=5")
    answers = []
    request = threading.Thread(target=lambda: answers.append(user.post("/v1/responses", {"input": "hello"})))
    request.start()
    wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE account_id = %s AND state = 'running'", user.account))

    assert stack.children["web-a"].stop() == 0

    request.join(20)
    assert answers[0]["status"] == "in_progress"
    user.post(f"/v1/responses/{answers[0]['id']}/cancel")


def test_turn_runs_when_the_web_process_dies_between_commit_and_message(stack: Installation, user: AccountOwner):
    """The relay of the killed process blocks while it publishes and holds the lock of all relays.

    With Valkey as broker the rate limiter is unreachable too, so the account has no limits.
    """
    stack.start_worker(SCRIPT)
    no_limits = '{"requests_per_minute": null, "tokens_per_minute": null}'
    stack.rows("UPDATE accounts SET limits = %s WHERE id = %s RETURNING id", no_limits, user.account)
    broker = stack.servers.children["rabbitmq"] if stack.broker == "rabbitmq" else stack.servers.children["valkey"]
    broker.signal(signal.SIGSTOP)
    try:
        request = threading.Thread(target=_create_turn_on_a_killed_process, args=[user])
        request.start()
        wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE account_id = %s", user.account))
        stack.children["web-a"].kill()
        request.join()
    finally:
        broker.signal(signal.SIGCONT)
    since = time.monotonic()

    (row,) = stack.rows("SELECT id FROM responses WHERE account_id = %s", user.account)
    follower = user.follow(row["id"])

    follower.wait_for_events(type_="response.in_progress")
    record_time(f"kill -9 between commit and message, {stack.broker}: until it runs", time.monotonic() - since)
    assert_complete(stack, user, follower)


def _create_turn_on_a_killed_process(user: AccountOwner) -> None:
    with pytest.raises(httpx.TransportError):
        user.stream_once()


def test_sweeper_publishes_a_turn_that_no_relay_has_published(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    (member,) = stack.rows("SELECT user_id FROM memberships WHERE account_id = %s", user.account)
    turn: NewTurn = new_turn(CreateResponse(input="hello"), Serving.of(stack.settings))

    started = start_turn(stack.database, Caller(member["user_id"], user.account, Role.OWNER), turn, *new_turn_ids())
    since = time.monotonic()

    follower = user.follow(started.response.id)
    follower.wait_for_events(type_="response.in_progress")
    record_time(f"no relay, {stack.broker}: until the turn that the sweeper publishes runs", time.monotonic() - since)
    assert_complete(stack, user, follower)
