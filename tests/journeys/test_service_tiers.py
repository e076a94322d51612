"""Turns with priority pass those of other accounts, and background work leaves its queue within its window."""

import time

import pytest

from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, AccountOwner, openai_client

pytestmark = ON_REDIS

#: Accounts whose turns wait, and the threads of the worker.
OTHERS, SLOTS = 8, 2

TWO_HOURS = {"completion_window": "2h"}

OF_ACCOUNT = "SELECT id, job_id FROM responses WHERE account_id = %s"

MESSAGES = [{"role": "user", "content": "hello"}]


def started_at(stack, turns):
    """Return when the jobs of turns began, by job."""
    rows = stack.rows("SELECT id, started_at FROM jobs WHERE id = ANY(%s)", [turn["job_id"] for turn in turns])
    return {row["id"]: row["started_at"] for row in rows}


def chunk_tiers(stack, user, **options):
    """Return the tiers that the chunks of a streamed completion show, in order and without repeats."""
    with openai_client(stack, user) as client:
        stream = client.chat.completions.create(model="default", messages=MESSAGES, stream=True, **options)
        return list(dict.fromkeys(chunk.service_tier for chunk in stream))


def test_a_turn_with_priority_passes_the_queued_turns_of_other_accounts(stack, user):
    # Given a slow model, and a turn of each of several accounts, of which two run
    stack.start_worker("tokens=10,rate=10", slots=SLOTS)
    others = [AccountOwner(stack) for _ in range(OTHERS)]
    waiting = [other.create_response() for other in others]
    wait_until(lambda: sum(at is not None for at in started_at(stack, waiting).values()) >= SLOTS, 20)
    # When another account asks with priority
    turn = user.create_response(service_tier="priority")
    ended = user.wait_for_end(turn["id"])
    for other, each in zip(others, waiting, strict=True):
        other.wait_for_end(each["id"])

    # Then it begins before the turns that waited, with at most those in between for which the slots were just free
    begun = started_at(stack, [turn, *waiting])
    own = begun[turn["job_id"]]
    assert sum(at > own for at in begun.values()) >= OTHERS - 2 * SLOTS
    assert (ended["status"], ended["service_tier"]) == ("completed", "priority")


@pytest.mark.parametrize(("seconds", "tier"), [(60.0, "priority"), (0.000001, "default")])
def test_a_response_and_chunks_show_the_tier_that_served(stack, user, seconds, tier):
    # Given a worker to which a turn is late after so many seconds
    stack.start_worker("tokens=4,rate=0", priority_seconds=seconds)

    response = user.wait_for_end(user.create_response(service_tier="priority")["id"])

    assert (response["status"], response["service_tier"]) == ("completed", tier)
    assert chunk_tiers(stack, user, service_tier="priority")[-1] == tier


QUEUE = "SELECT queue FROM jobs WHERE id = %s"


def assert_promoted_and_answered(stack, user, turn):
    """Assert that a turn with a window, which waits without a worker, leaves its queue, and is background work."""
    assert stack.rows(QUEUE, turn["job_id"]) == [{"queue": "inference_batch"}]
    # When half of the window has passed
    stack.rows(
        "WITH late AS (UPDATE completion_windows SET promote_at = promote_at - interval '1 hour' WHERE job_id = %s)"
        " SELECT 1",
        turn["job_id"],
    )
    # Then the scheduler moves it, and it is answered as background work
    wait_until(lambda: stack.rows(QUEUE, turn["job_id"]) == [{"queue": "inference"}], 30)
    stack.start_worker("tokens=4,rate=0")
    ended = user.wait_for_end(turn["id"])
    assert (ended["status"], ended["service_tier"]) == ("completed", "flex")


def test_a_background_turn_leaves_the_batch_queue_after_half_of_its_window(stack, user):
    turn = user.create_response(background_options=TWO_HOURS)

    assert_promoted_and_answered(stack, user, turn)


def test_a_scheduled_turn_leaves_the_batch_queue_after_half_of_its_window(stack, user):
    # Given a schedule whose turns have a window, and which fires
    request = {"model": "default", "input": "hello", "background_options": TWO_HOURS}
    trigger = {"type": "once", "at": int(time.time()) + 2}
    body = {"name": "soon", "trigger": trigger, "work": {"kind": "turn", "request": request}}
    assert user.request("POST", "/v1/schedules", json=body).status_code == 201
    (turn,) = wait_until(lambda: stack.rows(OF_ACCOUNT, user.account), 30)

    assert_promoted_and_answered(stack, user, turn)
