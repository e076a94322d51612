"""A streamed answer is complete, without repeats and billed once when any process is killed."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest
from openai import OpenAI

from bench.harness.processes import restart
from bench.harness.sse import DELTA, REWOUND, scripted_text
from bench.harness.waiting import wait_until
from models.accounts.accounts import Caller, Role
from pipelines.chat.start_turn import NewTurn, new_turn_ids, start_turn
from pipelines.chat.transcript import ANSWER_RESTARTED
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, record_time
from tests.journeys.stream_follower import StreamFollower
from web.api.turns.turn_request import CreateResponse, new_turn

TOKENS = 60
SCRIPT = f"tokens={TOKENS},rate=40"
TEXT = scripted_text(TOKENS)


def assert_complete(stack: Installation, user: AccountOwner, follower: StreamFollower) -> None:
    """Assert that stream, stored output and archive have the whole answer, and that it was billed once."""
    follower.end()
    assert follower.text == TEXT
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert stored["status"] == "completed"
    assert stored["output"][0]["content"][0]["text"] == TEXT
    assert stored == follower.events[-1].json()["response"]
    billed = stack.rows("SELECT output_tokens FROM usage_records WHERE job_id = %s", stored["job_id"])
    assert [row["output_tokens"] for row in billed] == [TOKENS] == [stored["usage"]["output_tokens"]]
    assert_replay(stack, user, follower)


def assert_replay(stack: Installation, user: AccountOwner, follower: StreamFollower) -> None:
    """Assert that the archive alone replays the stream from several positions.

    A replay from a position after a rewind begins with the rewind event.
    """
    stack.redis.delete(f"sangha:events:{follower.job_id}", f"sangha:journal:{follower.job_id}")
    rewinds = [event.sequence - 1 for event in follower.events if event.type == REWOUND]
    for after in (-1, follower.last // 2, follower.last - 1):
        first = min([after, *rewinds])
        replay = user.follow(follower.response_id, after, by_query=True).end()
        assert [event.data for event in replay.events] == [
            event.data for event in follower.effective if event.sequence > first
        ]


@contextmanager
def fault(name: str, stack: Installation, follower: StreamFollower, deltas: int = 10) -> Iterator[None]:
    """Inject a fault during an answer, and record the longest pause after it when the stream has ended."""
    follower.wait_for_events(deltas=deltas)
    since = time.monotonic()
    yield
    follower.end()
    record_time(f"{name}, {stack.broker}: longest pause", follower.longest_pause(since))


def attempts(stack: Installation, follower: StreamFollower) -> tuple[int, int]:
    """Return the number of attempts at a turn, and how many of them count as failures."""
    (row,) = stack.rows("SELECT attempt, failures FROM jobs WHERE id = %s", follower.job_id)
    return row["attempt"], row["failures"]


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


@pytest.mark.parametrize("installation", ["rabbitmq"], indirect=True)
def test_answers_survive_a_killed_rabbitmq(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 RabbitMQ", stack, follower):
        stack.servers.rabbitmq.sync_queues()
        stack.servers.children["rabbitmq"].kill()
        second = user.stream("while it is down")
        second.wait_for_events(type_="response.queued")
        restart(stack.servers.children["rabbitmq"])
        since = time.monotonic()

    assert_complete(stack, user, follower)
    second.wait_for_events(type_="response.in_progress")
    record_time("RabbitMQ ready again: until the turn that was created meanwhile runs", time.monotonic() - since)
    assert_complete(stack, user, second)
    assert attempts(stack, follower) == (1, 0)


@ON_REDIS
def test_answer_survives_a_killed_valkey(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 Valkey", stack, follower):
        stack.servers.children["valkey"].kill()
        restart(stack.servers.children["valkey"])

    assert_complete(stack, user, follower)
    assert_complete(stack, user, user.stream("afterwards"))


def test_answer_survives_an_emptied_valkey(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("FLUSHALL", stack, follower):
        stack.redis.flushall()

    assert_complete(stack, user, follower)
    assert REWOUND not in follower.types
    assert_complete(stack, user, user.stream("afterwards"))


@ON_REDIS
def test_answer_survives_an_emptied_valkey_and_a_killed_web_process(stack: Installation, user: AccountOwner):
    """The client resumes after an event that only the running attempt has."""
    stack.start_worker("tokens=60,rate=8")
    follower = user.stream()

    with fault("FLUSHALL and kill -9 web", stack, follower, deltas=4):
        stack.redis.flushall()
        stack.children["web-a"].kill()
        stack.start_worker("tokens=60,rate=0")
        assert stack.runner(follower.job_id).stop() == 0

    assert_complete(stack, user, follower)


@ON_REDIS
def test_answer_survives_a_killed_valkey_and_a_killed_web_process(stack: Installation, user: AccountOwner):
    """The client reconnects while the position of the stream is unknown."""
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 Valkey and web", stack, follower):
        stack.servers.children["valkey"].kill()
        stack.children["web-a"].kill()
        wait_until(lambda: follower.refusals or follower.connections == 2)
        restart(stack.servers.children["valkey"])

    assert_complete(stack, user, follower)


@ON_REDIS
def test_stream_ends_while_valkey_is_down(stack: Installation, user: AccountOwner):
    stack.start_worker(SCRIPT)
    follower = user.stream()
    follower.wait_for_events(deltas=30)

    stack.servers.children["valkey"].kill()
    wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE id = %s AND state = 'completed'", follower.job_id))
    since = time.monotonic()
    follower.end()

    record_time("Valkey is down: from the end of the answer to the end of its stream", time.monotonic() - since)
    restart(stack.servers.children["valkey"])
    assert_complete(stack, user, follower)


def test_answer_that_ends_while_postgres_is_killed_is_recorded(stack: Installation, user: AccountOwner):
    end_answer_without_postgres(stack, user, stack.servers.children["postgres"].kill)


@ON_REDIS
def test_answer_that_ends_while_postgres_restarts_is_recorded(stack: Installation, user: AccountOwner):
    end_answer_without_postgres(stack, user, stack.servers.children["postgres"].stop)


def end_answer_without_postgres(stack: Installation, user: AccountOwner, take_down: Callable[[], object]) -> None:
    """Have an answer end while Postgres is down; it is recorded when Postgres is back."""
    stack.start_worker(SCRIPT)
    follower = user.stream()

    follower.wait_for_events(deltas=10)
    take_down()
    wait_until(lambda: follower.text == TEXT)
    restart(stack.servers.children["postgres"])
    since = time.monotonic()
    follower.end()

    record_time(f"Postgres, {stack.broker}: from ready again to the end of the stream", time.monotonic() - since)
    assert_complete(stack, user, follower)
    assert attempts(stack, follower) == (1, 0)
    assert_complete(stack, user, user.stream("afterwards"))


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
    turn: NewTurn = new_turn(CreateResponse(input="hello"), stack.settings)

    started = start_turn(stack.database, Caller(member["user_id"], user.account, Role.OWNER), turn, *new_turn_ids())
    since = time.monotonic()

    follower = user.follow(started.response.id)
    follower.wait_for_events(type_="response.in_progress")
    record_time(f"no relay, {stack.broker}: until the turn that the sweeper publishes runs", time.monotonic() - since)
    assert_complete(stack, user, follower)


@ON_REDIS
def test_streams_are_rewound_after_the_loss_of_worker_and_valkey(stack: Installation, user: AccountOwner):
    """Open streams, streams that resume at once and streams that resume later get the same rewind."""
    stack.start_worker(SCRIPT)
    follower = user.stream()
    received = len(follower.wait_for_events(deltas=20))
    runner = stack.runner(follower.job_id)

    runner.kill()
    stack.redis.flushall()
    at_once = user.follow(follower.response_id, follower.last)
    wait_until(lambda: at_once.refusals)
    successor = stack.start_worker(SCRIPT)
    since = time.monotonic()
    stack.release_jobs(runner)

    assert_complete(stack, user, follower)
    record_time(f"kill -9 a worker and FLUSHALL, {stack.broker}: longest pause", follower.longest_pause(since))
    (rewind,) = [event for event in follower.events if event.type == REWOUND]
    assert rewind.sequence == 2
    assert received > rewind.sequence
    for other in (at_once, user.follow(follower.response_id, received - 1)):
        assert other.end().events[0].data == rewind.data
        assert other.text == TEXT
    assert successor.running


@ON_REDIS
def test_checkpoint_survives_the_loss_of_worker_and_valkey(stack: Installation, user: AccountOwner):
    runner = stack.start_worker("tokens=60,rate=7")
    follower = user.stream()
    wait_until(lambda: stack.rows("SELECT 1 FROM job_events WHERE job_id = %s AND last_sequence > 10", follower.job_id))
    received = len(follower.events)
    follower.wait_for_events(received + 1)

    runner.kill()
    stack.redis.flushall()
    stack.release_jobs(runner)
    stack.start_worker("tokens=60,rate=0")

    assert_complete(stack, user, follower)
    (rewind,) = [event for event in follower.events if event.type == REWOUND]
    before = follower.events[: follower.events.index(rewind)]
    kept = "".join(e.json()["delta"] for e in before if e.type == DELTA and e.sequence < rewind.sequence)
    assert kept.startswith("w0 w1 w2 ")
    assert TEXT.startswith(kept)
