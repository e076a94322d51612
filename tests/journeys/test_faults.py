"""Given an answer that streams, when any process dies, then the answer is whole, told once and billed once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from bench.harness.processes import restart
from bench.harness.sse import DELTA, REWOUND, scripted_text
from bench.harness.waiting import wait_until
from models.accounts.accounts import Caller, Role
from pipelines.chat.start import NewTurn, new_turn_ids, start_turn
from pipelines.chat.transcript import ANSWER_RESTARTED
from tests.journeys.stack import ON_REDIS, Installation, User, record_time
from tests.journeys.stream_follower import StreamFollower
from web.api.turns.turn_request import CreateResponse, new_turn

TOKENS = 60
SCRIPT = f"tokens={TOKENS},rate=40"
TEXT = scripted_text(TOKENS)


def whole(stack: Installation, user: User, follower: StreamFollower) -> None:
    """What was heard is the script, the stored output, and what the archive replays for ever; it was billed once."""
    follower.end()
    assert follower.text == TEXT
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert stored["status"] == "completed"
    assert stored["output"][0]["content"][0]["text"] == TEXT
    assert stored == follower.events[-1].json()["response"]
    billed = stack.rows("SELECT output_tokens FROM usage_records WHERE job_id = %s", stored["job_id"])
    assert [row["output_tokens"] for row in billed] == [TOKENS] == [stored["usage"]["output_tokens"]]
    replayed(stack, user, follower)


def replayed(stack: Installation, user: User, follower: StreamFollower) -> None:
    """The archive alone tells what stands of what was heard, from the beginning and from the middle.

    Whoever may have heard what was lost is taken back to the event that says so.
    """
    stack.redis.delete(f"sangha:events:{follower.job_id}", f"sangha:journal:{follower.job_id}")
    rewinds = [event.sequence - 1 for event in follower.events if event.type == REWOUND]
    for after in (-1, follower.last // 2, follower.last - 1):
        begin = min([after, *rewinds])
        again = user.follow(follower.response_id, after, by_query=True).end()
        assert [event.data for event in again.events] == [
            event.data for event in follower.effective if event.sequence > begin
        ]


@contextmanager
def fault(what: str, stack: Installation, follower: StreamFollower, deltas: int = 10) -> Iterator[None]:
    """A fault in mid-answer; how long the longest silence after it was is noted at the end of the stream."""
    follower.wait_for_events(deltas=deltas)
    since = time.monotonic()
    yield
    follower.end()
    record_time(f"{what}, {stack.broker}: longest silence", follower.longest_pause(since))


def attempts(stack: Installation, follower: StreamFollower) -> tuple[int, int]:
    """How many attempts a turn took, and how many of them count as failures."""
    (row,) = stack.rows("SELECT attempt, failures FROM jobs WHERE id = %s", follower.job_id)
    return row["attempt"], row["failures"]


def test_a_worker_is_killed(stack: Installation, user: User):
    stack.start_workers(2, SCRIPT)
    follower = user.stream()

    with fault("kill -9 a worker", stack, follower):
        runner = stack.runner(follower.job_id)
        runner.kill()
        if stack.broker == "redis":  # RabbitMQ tells by itself; here it takes a supervisor
            stack.release_jobs(runner)

    whole(stack, user, follower)
    assert attempts(stack, follower) == (2, 1)


@ON_REDIS
def test_a_worker_is_killed_and_nobody_sees_it(stack: Installation, user: User):
    stack.start_workers(2, SCRIPT)
    follower = user.stream()

    with fault("kill -9 a worker, lease just over", stack, follower):
        stack.runner(follower.job_id).kill()
        stack.rows("UPDATE jobs SET lease_until = now() WHERE id = %s RETURNING id", follower.job_id)

    whole(stack, user, follower)


@ON_REDIS
def test_workers_are_killed_again_and_again(stack: Installation, user: User):
    """Each attempt goes on exactly where the one before was cut."""
    stack.start_workers(3, SCRIPT)
    follower = user.stream()

    for deltas in (10, 25):
        follower.wait_for_events(deltas=deltas)
        runner = stack.runner(follower.job_id)
        runner.kill()
        stack.release_jobs(runner)
        wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE id = %s AND state = 'running'", follower.job_id))

    whole(stack, user, follower)
    assert attempts(stack, follower) == (3, 2)


def test_a_worker_is_asked_to_leave(stack: Installation, user: User):
    stack.start_workers(2, SCRIPT)
    follower = user.stream()

    with fault("TERM to a worker", stack, follower):
        assert stack.runner(follower.job_id).stop() == 0

    whole(stack, user, follower)
    assert attempts(stack, follower) == (2, 0)


@ON_REDIS
def test_an_engine_that_cannot_continue_begins_again_and_says_so(stack: Installation, user: User):
    stack.start_workers(2, f"{SCRIPT},restarts=1")
    follower = user.stream()

    with fault("kill -9 a worker, restarting engine", stack, follower):
        runner = stack.runner(follower.job_id)
        runner.kill()
        stack.release_jobs(runner)

    whole(stack, user, follower)
    assert follower.types.count(ANSWER_RESTARTED) == 1


@ON_REDIS
def test_a_web_process_is_killed(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 web", stack, follower):
        stack.children["web-a"].kill()

    whole(stack, user, follower)
    assert (follower.connections, follower.clean_ends) == (2, 1)


@ON_REDIS
def test_a_web_process_is_asked_to_leave(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("TERM to web", stack, follower):
        assert stack.children["web-a"].stop() == 0

    whole(stack, user, follower)
    assert (follower.connections, follower.clean_ends) == (2, 2)


@ON_REDIS
def test_whoever_waits_for_an_answer_without_a_stream_hears_how_far_it_is(stack: Installation, user: User):
    stack.start_worker(f"tokens={TOKENS},rate=5")
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(user.post("/v1/responses", {"input": "hello"})))
    waiting.start()
    wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE account_id = %s AND state = 'running'", user.account))

    assert stack.children["web-a"].stop() == 0

    waiting.join(20)
    assert answers[0]["status"] == "in_progress"
    user.post(f"/v1/responses/{answers[0]['id']}/cancel")


@pytest.mark.parametrize("installation", ["rabbitmq"], indirect=True)
def test_rabbitmq_is_killed_and_comes_back(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 RabbitMQ", stack, follower):
        stack.servers.rabbitmq.sync_queues()
        stack.servers.children["rabbitmq"].kill()
        later = user.stream("while it is down")
        later.wait_for_events(type_="response.queued")
        restart(stack.servers.children["rabbitmq"])
        since = time.monotonic()

    whole(stack, user, follower)
    later.wait_for_events(type_="response.in_progress")
    record_time("RabbitMQ ready again: until the turn from meanwhile runs", time.monotonic() - since)
    whole(stack, user, later)
    assert attempts(stack, follower) == (1, 0)


@ON_REDIS
def test_valkey_is_killed_and_comes_back(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 Valkey", stack, follower):
        stack.servers.children["valkey"].kill()
        restart(stack.servers.children["valkey"])

    whole(stack, user, follower)
    whole(stack, user, user.stream("afterwards"))


def test_valkey_forgets_everything(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("FLUSHALL", stack, follower):
        stack.redis.flushall()

    whole(stack, user, follower)
    assert REWOUND not in follower.types
    whole(stack, user, user.stream("afterwards"))


@ON_REDIS
def test_valkey_forgets_everything_and_the_web_process_dies(stack: Installation, user: User):
    """The client comes back with an id that nobody but the running attempt knows of."""
    stack.start_worker("tokens=60,rate=8")
    follower = user.stream()

    with fault("FLUSHALL and kill -9 web", stack, follower, deltas=4):
        stack.redis.flushall()
        stack.children["web-a"].kill()
        stack.start_worker("tokens=60,rate=0")
        assert stack.runner(follower.job_id).stop() == 0

    whole(stack, user, follower)


@ON_REDIS
def test_valkey_and_the_web_process_die(stack: Installation, user: User):
    """The client comes back while nobody can tell how far the stream has come."""
    stack.start_worker(SCRIPT)
    follower = user.stream()

    with fault("kill -9 Valkey and web", stack, follower):
        stack.servers.children["valkey"].kill()
        stack.children["web-a"].kill()
        wait_until(lambda: follower.refusals or follower.connections == 2)
        restart(stack.servers.children["valkey"])

    whole(stack, user, follower)


@ON_REDIS
def test_an_answer_ends_while_valkey_is_down(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    follower = user.stream()
    follower.wait_for_events(deltas=30)

    stack.servers.children["valkey"].kill()
    wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE id = %s AND state = 'completed'", follower.job_id))
    since = time.monotonic()
    follower.end()

    record_time("Valkey is down: from the end of the answer to the end of its stream", time.monotonic() - since)
    restart(stack.servers.children["valkey"])
    whole(stack, user, follower)


def test_postgres_is_killed_and_comes_back_after_the_last_token(stack: Installation, user: User):
    postgres_ends(stack, user, stack.servers.children["postgres"].kill)


@ON_REDIS
def test_postgres_is_restarted_and_comes_back_after_the_last_token(stack: Installation, user: User):
    postgres_ends(stack, user, stack.servers.children["postgres"].stop)


def postgres_ends(stack: Installation, user: User, how: Callable[[], object]) -> None:
    """The answer ends while Postgres is away, and so waits to be recorded."""
    stack.start_worker(SCRIPT)
    follower = user.stream()

    follower.wait_for_events(deltas=10)
    how()
    wait_until(lambda: follower.text == TEXT)
    restart(stack.servers.children["postgres"])
    since = time.monotonic()
    follower.end()

    record_time(f"Postgres, {stack.broker}: from ready again to the end of the stream", time.monotonic() - since)
    whole(stack, user, follower)
    assert attempts(stack, follower) == (1, 0)
    whole(stack, user, user.stream("afterwards"))


def test_a_process_dies_between_commit_and_message(stack: Installation, user: User):
    """Its relay hangs in the middle of publishing, with the lock that lets only one of them publish.

    Where the broker is Valkey the limits can't be looked up meanwhile: an account that has none still begins work.
    """
    stack.start_worker(SCRIPT)
    none = '{"requests_per_minute": null, "tokens_per_minute": null}'
    stack.rows("UPDATE accounts SET limits = %s WHERE id = %s RETURNING id", none, user.account)
    broker = stack.servers.children["rabbitmq"] if stack.broker == "rabbitmq" else stack.servers.children["valkey"]
    broker.signal(signal.SIGSTOP)
    try:
        asking = threading.Thread(target=_ask_a_process_that_dies, args=[user])
        asking.start()
        wait_until(lambda: stack.rows("SELECT 1 FROM jobs WHERE account_id = %s", user.account))
        stack.children["web-a"].kill()
        asking.join()
    finally:
        broker.signal(signal.SIGCONT)
    since = time.monotonic()

    (row,) = stack.rows("SELECT id FROM responses WHERE account_id = %s", user.account)
    follower = user.follow(row["id"])

    follower.wait_for_events(type_="response.in_progress")
    record_time(f"kill -9 between commit and message, {stack.broker}: until it runs", time.monotonic() - since)
    whole(stack, user, follower)


def _ask_a_process_that_dies(user: User) -> None:
    with pytest.raises(httpx.TransportError):
        user.stream_once()


def test_what_no_relay_has_published_the_sweeper_does(stack: Installation, user: User):
    stack.start_worker(SCRIPT)
    (member,) = stack.rows("SELECT user_id FROM memberships WHERE account_id = %s", user.account)
    turn: NewTurn = new_turn(CreateResponse(input="hello"), stack.settings)

    started = start_turn(stack.database, Caller(member["user_id"], user.account, Role.OWNER), turn, *new_turn_ids())
    since = time.monotonic()

    follower = user.follow(started.response.id)
    follower.wait_for_events(type_="response.in_progress")
    record_time(f"no relay, {stack.broker}: until the sweeper's turn runs", time.monotonic() - since)
    whole(stack, user, follower)


@ON_REDIS
def test_worker_and_valkey_are_lost_together(stack: Installation, user: User):
    """Those who follow, those who come back at once, and those who come back later are all taken back."""
    stack.start_worker(SCRIPT)
    follower = user.stream()
    heard = len(follower.wait_for_events(deltas=20))
    runner = stack.runner(follower.job_id)

    runner.kill()
    stack.redis.flushall()
    at_once = user.follow(follower.response_id, follower.last)
    wait_until(lambda: at_once.refusals)
    successor = stack.start_worker(SCRIPT)
    since = time.monotonic()
    stack.release_jobs(runner)

    whole(stack, user, follower)
    record_time(f"kill -9 a worker and FLUSHALL, {stack.broker}: longest silence", follower.longest_pause(since))
    (rewind,) = [event for event in follower.events if event.type == REWOUND]
    assert rewind.sequence == 2
    assert heard > rewind.sequence
    for other in (at_once, user.follow(follower.response_id, heard - 1)):
        assert other.end().events[0].data == rewind.data
        assert other.text == TEXT
    assert successor.running


@ON_REDIS
def test_what_a_checkpoint_holds_survives_the_loss_of_both(stack: Installation, user: User):
    runner = stack.start_worker("tokens=60,rate=7")
    follower = user.stream()
    wait_until(lambda: stack.rows("SELECT 1 FROM job_events WHERE job_id = %s AND last_sequence > 10", follower.job_id))
    heard = len(follower.events)
    follower.wait_for_events(heard + 1)

    runner.kill()
    stack.redis.flushall()
    stack.release_jobs(runner)
    stack.start_worker("tokens=60,rate=0")

    whole(stack, user, follower)
    (rewind,) = [event for event in follower.events if event.type == REWOUND]
    before = follower.events[: follower.events.index(rewind)]
    kept = "".join(e.json()["delta"] for e in before if e.type == DELTA and e.sequence < rewind.sequence)
    assert kept.startswith("w0 w1 w2 ")
    assert TEXT.startswith(kept)
