"""Turns that were moved to an endpoint are answered, each token once, whatever becomes of it and of its workers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from bench.harness.endpoint.client import ScriptedEndpoint, scripted_endpoint
from bench.harness.processes import ConfiguredScheduler, changed
from bench.harness.waiting import wait_until
from models.platform.upstreams import Upstream
from models.serving import breakers
from models.serving.breakers import MIN_FAILURES, MOST_FAILURES, TIMEOUTS_IN_A_ROW
from models.serving.moves import Candidate, Reason, Target, spill
from pipelines.chat.transcript import ANSWER_RESTARTED
from tests.journeys.answers import SCRIPT, TEXT, TOKENS
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation
from tests.journeys.stream_follower import StreamFollower

pytestmark = ON_REDIS

NAME, MODEL, SLOTS = "remote", "big", 3


@pytest.fixture
def endpoint(stack: Installation) -> Iterator[ScriptedEndpoint]:
    """An endpoint with the local engine's answers, whose breaker is closed."""
    stack.rows("DELETE FROM circuit_breakers RETURNING upstream")
    with scripted_endpoint(tokens=TOKENS, rate=40) as endpoint:
        yield endpoint


def start_upstream(stack: Installation, endpoint: ScriptedEndpoint, **options: Any) -> None:
    """Start a worker of the pool `upstream`."""
    upstream = Upstream(NAME, endpoint.url, (MODEL,), slots=SLOTS, **options)
    stack.start_worker("", "upstream", upstreams=(upstream,))


def move(stack: Installation, *job_ids: str, reason: Reason = "queue_full") -> None:
    """Move turns that wait for a local worker to the endpoint, as the router does."""

    left = set(job_ids)

    def moved() -> Sequence[str]:
        with stack.database.transaction() as connection:
            turns = [Candidate(job_id) for job_id in left]
            return spill(connection, "inference", Target(NAME, MODEL), turns, reason, unfinished=len(turns)).job_ids

    def all_moved() -> bool:
        """Move those that are not locked at the moment, as by the relay."""
        left.difference_update(moved())
        return not left

    wait_until(all_moved, what="turns that can be moved")


def begin_at_endpoint(stack: Installation, user: AccountOwner, reason: Reason = "queue_full") -> StreamFollower:
    """Create a turn that an endpoint answers, and wait for its first tokens."""
    follower = user.stream()
    move(stack, follower.job_id, reason=reason)
    follower.wait_for_events(deltas=3)
    return follower


def row_of(stack: Installation, job_id: str) -> dict:
    (row,) = stack.rows("SELECT queue, failures, arguments -> 'route' AS route FROM jobs WHERE id = %s", job_id)
    return row


def state(stack: Installation) -> str:
    with stack.database.connection() as connection:
        return breakers.read(connection, NAME).state


def assert_whole(user: AccountOwner, follower: StreamFollower) -> None:
    """Assert that the stream has each token once, and so has the stored answer."""
    follower.end()
    assert follower.text == TEXT
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert (stored["status"], stored["output"][0]["content"][0]["text"]) == ("completed", TEXT)


def restarts(follower: StreamFollower) -> int:
    return sum(event.type == ANSWER_RESTARTED for event in follower.events)


def test_answer_that_the_endpoint_drops_is_continued_by_the_local_model(stack, user, endpoint):
    # Given an endpoint whose connection breaks after ten tokens
    start_upstream(stack, endpoint)
    endpoint.change(fault="drop", after=10)
    follower = begin_at_endpoint(stack, user)

    # When it has broken, and a local worker starts
    wait_until(lambda: row_of(stack, follower.job_id)["queue"] == "inference", what="the return of the turn")
    stack.start_worker(SCRIPT)

    # Then the same stream goes on: nothing is lost, repeated, or begun again
    assert_whole(user, follower)
    assert restarts(follower) == 0
    row = row_of(stack, follower.job_id)
    assert (row["failures"], row["route"]["reason"], row["route"]["endpoint"]) == (0, "endpoint_failed", None)


def test_endpoint_that_fails_gets_few_requests_all_turns_are_answered_and_one_probe_brings_it_back(
    stack, user, endpoint
):
    # Given an endpoint that fails, and more turns than it takes to open its breaker
    endpoint.change(fault="status", status=500)
    start_upstream(stack, endpoint)
    turns = [user.create_response() for _ in range(MOST_FAILURES + 2 * SLOTS)]

    # When they are moved there
    move(stack, *(turn["job_id"] for turn in turns))

    # Then it gets a bounded number of requests, and all turns return without a failure
    wait_until(lambda: Counter(row_of(stack, turn["job_id"])["queue"] for turn in turns) == {"inference": len(turns)})
    assert state(stack) == "open"
    assert MIN_FAILURES <= len(endpoint.book()) <= MOST_FAILURES + SLOTS
    assert {row_of(stack, turn["job_id"])["failures"] for turn in turns} == {0}

    # And a local worker answers them
    worker = stack.start_worker("tokens=60,rate=0")
    assert {user.wait_for_end(turn["id"])["status"] for turn in turns} == {"completed"}

    # When the endpoint works again and the cooldown is over
    endpoint.heal()
    stack.rows("UPDATE circuit_breakers SET probe_at = now() RETURNING upstream")
    worker.stop()
    before = len(endpoint.book())
    follower = begin_at_endpoint(stack, user, "probe")

    # Then one turn probes it, and the breaker closes
    assert_whole(user, follower)
    assert len(endpoint.book()) == before + 1
    assert state(stack) == "closed"


def test_endpoint_that_answers_429_is_left_alone_for_as_long_as_it_says(stack, user, endpoint):
    endpoint.change(fault="status", status=429, retry_after=60)
    start_upstream(stack, endpoint)
    turns = [user.create_response() for _ in range(3 * SLOTS)]

    move(stack, *(turn["job_id"] for turn in turns))

    wait_until(lambda: Counter(row_of(stack, turn["job_id"])["queue"] for turn in turns) == {"inference": len(turns)})
    assert state(stack) == "closed"
    assert len(endpoint.book()) <= SLOTS
    assert {row_of(stack, turn["job_id"])["route"]["reason"] for turn in turns} == {"endpoint_saturated"}
    stack.start_worker("tokens=60,rate=0")
    assert {user.wait_for_end(turn["id"])["status"] for turn in turns} == {"completed"}


def test_turn_whose_request_the_endpoint_rejects_is_answered_locally_and_opens_nothing(stack, user, endpoint):
    endpoint.change(fault="status", status=400)
    start_upstream(stack, endpoint)
    turn = user.create_response()

    move(stack, turn["job_id"])

    wait_until(lambda: row_of(stack, turn["job_id"])["queue"] == "inference")
    assert row_of(stack, turn["job_id"])["route"]["stays"]
    assert state(stack) == "closed"
    stack.start_worker("tokens=60,rate=0")
    assert user.wait_for_end(turn["id"])["status"] == "completed"


def test_answer_returns_when_the_last_worker_of_the_endpoint_is_killed(stack, user, endpoint):
    start_upstream(stack, endpoint)
    follower = begin_at_endpoint(stack, user)

    runner = stack.runner(follower.job_id)
    runner.kill()
    stack.release_jobs(runner)
    wait_until(lambda: row_of(stack, follower.job_id)["queue"] == "inference", 30, what="the return of the turn")
    stack.start_worker(SCRIPT)

    assert_whole(user, follower)
    assert restarts(follower) == 0


def test_answer_is_begun_again_by_another_worker_of_an_endpoint_that_cannot_continue(stack, user, endpoint):
    start_upstream(stack, endpoint)
    start_upstream(stack, endpoint)
    follower = begin_at_endpoint(stack, user)

    runner = stack.runner(follower.job_id)
    runner.kill()
    stack.release_jobs(runner)

    assert_whole(user, follower)
    assert restarts(follower) == 1


@pytest.mark.parametrize("continues", [True, False])
def test_answer_of_a_killed_local_worker_goes_on_at_the_endpoint(stack, user, endpoint, continues):
    # Given an answer of a local worker
    endpoint.change(continues=continues)
    start_upstream(stack, endpoint, continues=continues)
    stack.start_worker(SCRIPT)
    follower = user.stream()
    follower.wait_for_events(deltas=10)

    # When the worker is killed, no other one serves the model, and the turn is moved
    runner = stack.runner(follower.job_id)
    runner.kill()
    stack.release_jobs(runner)
    move(stack, follower.job_id)

    # Then the endpoint continues the text, or begins the answer again, which an event says
    assert_whole(user, follower)
    assert restarts(follower) == (0 if continues else 1)


def test_endpoint_that_is_slower_than_its_timeout_opens_its_breaker(stack, user, endpoint):
    # Given an endpoint whose answers begin later than the installation waits
    endpoint.change(fault="slow", delay=30)
    start_upstream(stack, endpoint, timeout=1)
    turns = [user.create_response() for _ in range(4 * SLOTS)]

    # When turns are moved there
    move(stack, *(turn["job_id"] for turn in turns))

    # Then a few of them find out, and all return
    wait_until(lambda: Counter(row_of(stack, turn["job_id"])["queue"] for turn in turns) == {"inference": len(turns)})
    assert state(stack) == "open"
    assert len(endpoint.book()) <= TIMEOUTS_IN_A_ROW + SLOTS
    stack.start_worker("tokens=60,rate=0")
    assert {user.wait_for_end(turn["id"])["status"] for turn in turns} == {"completed"}


def test_flood_goes_to_the_endpoint_returns_when_it_fails_and_goes_there_again(stack, user, endpoint):
    """The whole way, by the router of a scheduler, without a hand in it."""
    # Given a slow local worker, and an installation that moves turns which would wait for more than a second
    options = {
        "upstreams": (Upstream(NAME, endpoint.url, (MODEL,), slots=SLOTS),),
        "spill_to": NAME,
        "spill_after": 1.0,
    }
    stack.start_worker("tokens=60,rate=20", slots=1)
    stack.start_worker("", "upstream", **options)
    scheduler = stack.start(ConfiguredScheduler(changed(stack.settings, **options), "router"))[0]
    try:
        # When more turns are created than it answers in that time
        turns = [user.create_response() for _ in range(8)]

        # Then the endpoint answers some
        assert {user.wait_for_end(turn["id"])["status"] for turn in turns} == {"completed"}
        assert endpoint.book()

        # When it fails, then all are answered locally, after a bounded number of requests
        endpoint.change(fault="refuse")
        before = len(endpoint.book())
        turns = [user.create_response(max_output_tokens=5) for _ in range(MOST_FAILURES + SLOTS)]
        assert not {user.wait_for_end(turn["id"])["status"] for turn in turns} & {"failed", "cancelled"}
        assert len(endpoint.book()) == before

        # When it works again, then a probe closes the breaker
        endpoint.heal()
        with stack.database.connection() as connection:
            breakers.record_failure(connection, NAME, "job_a", "auth")  # open, however many failures it has counted
            connection.execute("UPDATE circuit_breakers SET probe_at = now()")
        turns = [user.create_response() for _ in range(8)]
        assert {user.wait_for_end(turn["id"])["status"] for turn in turns} == {"completed"}
        assert state(stack) == "closed"
        assert len(endpoint.book()) > before
    finally:
        scheduler.stop()


def test_turn_of_an_endpoint_that_fails_goes_on_at_another_one_with_its_model(stack, user, endpoint):
    # Given two endpoints with one model, the first of which breaks off
    with scripted_endpoint(tokens=TOKENS, rate=40, continues=True) as second:
        upstreams = (
            Upstream(NAME, endpoint.url, (MODEL,), slots=SLOTS),
            Upstream("second", second.url, (MODEL,), slots=SLOTS, continues=True),
        )
        stack.start_worker("", "upstream", upstreams=upstreams)
        endpoint.change(fault="drop", after=10)

        # When a turn that names the model only fails at the first one
        follower = user.stream()
        stack.rows(
            "UPDATE jobs SET queue = %s, published_at = NULL, arguments = arguments || %s WHERE id = %s RETURNING id",
            f"upstream.{NAME}",
            Jsonb({"model": MODEL}),
            follower.job_id,
        )

        # Then the other one continues the text, and no failure is counted
        assert_whole(user, follower)
        row = row_of(stack, follower.job_id)
        assert (row["queue"], row["failures"], restarts(follower)) == ("upstream.second", 0, 0)
