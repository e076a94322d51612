"""A streamed answer is complete, without repeats and billed once when a broker, Valkey or Postgres is killed."""

import time
from collections.abc import Callable

import pytest

from bench.harness.processes import restart
from bench.harness.sse import DELTA, REWOUND
from bench.harness.waiting import wait_until
from tests.journeys.answers import SCRIPT, TEXT, assert_complete, attempts, fault
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, record_time


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
