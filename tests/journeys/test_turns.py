"""Given more turns than slots, when they wait, are cancelled or kill their worker, then others get their turn."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.harness.sse import scripted_text
from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, Installation, Supervisor, User, record_time


def billed(stack: Installation, job_id: str) -> list[int]:
    """The tokens of each usage record of a turn."""
    rows = stack.rows("SELECT output_tokens FROM usage_records WHERE job_id = %s", job_id)
    return [row["output_tokens"] for row in rows]


def test_a_cancel_frees_the_slot_at_once_and_keeps_what_was_said(stack: Installation, user: User):
    stack.start_worker("tokens=400,rate=40", slots=1)
    first = user.stream("one")
    first.wait_for_events(deltas=5)
    second = user.stream("two")
    second.wait_for_events(type_="response.queued")

    since = time.monotonic()
    answer = user.post(f"/v1/responses/{first.response_id}/cancel")
    second.wait_for_events(deltas=1)
    record_time(f"cancel, {stack.broker}: until the next turn's first token", time.monotonic() - since)

    assert time.monotonic() - since < 3
    assert answer["status"] == "cancelled"
    stored = user.wait_for_end(first.response_id)
    assert first.end().types[-1] == "sangha:job.cancelled"
    assert stored["status"] == "cancelled"
    assert stored["output"][0]["status"] == "incomplete"
    assert stored["output"][0]["content"][0]["text"] == first.text
    assert billed(stack, first.job_id) == [len(first.text.split())]
    user.post(f"/v1/responses/{second.response_id}/cancel")


@ON_REDIS
def test_a_cancelled_queued_turn_never_runs(stack: Installation, user: User):
    stack.start_worker("tokens=20,rate=20", slots=1)
    running = user.stream("one")
    running.wait_for_events(deltas=1)
    queued = user.stream("two")
    queued.wait_for_events(type_="response.queued")

    answer = user.post(f"/v1/responses/{queued.response_id}/cancel")

    assert answer["status"] == "cancelled"
    assert queued.end().types == ["response.created", "response.queued", "sangha:job.cancelled"]
    assert running.end().types[-1] == "response.completed"
    assert user.stream("three").end().text.startswith("w0 ")
    assert stack.rows("SELECT attempt FROM jobs WHERE id = %s", queued.job_id) == [{"attempt": 0}]
    assert billed(stack, queued.job_id) == []
    assert user.get(f"/v1/responses/{queued.response_id}")["output"] == []


def served(stack: Installation, user: User) -> int:
    """How many jobs of a user's account are completed."""
    rows = stack.rows("SELECT 1 FROM jobs WHERE account_id = %s AND state = 'completed'", user.account)
    return len(rows)


def test_two_hundred_turns_do_not_stand_in_front_of_one(stack: Installation, user: User):
    """One turn lasts half a second, so that all of them would take fifty with these two slots."""
    other = User(stack)
    stack.start_worker("tokens=20,rate=40")
    with httpx.Client(base_url=stack.addresses()[0], headers=user.headers, timeout=60) as client:

        def ask(number: int) -> str:
            body = {"input": f"turn {number}", "background": True}
            return str(client.post("/v1/responses", json=body).raise_for_status().json()["id"])

        with ThreadPoolExecutor(8) as pool:
            crowd = list(pool.map(ask, range(200)))
            before, since = served(stack, user), time.monotonic()
            single = other.stream()
            single.wait_for_events(deltas=1)
            record_time(f"one turn behind 200, {stack.broker}: until its first token", time.monotonic() - since)
            single.end()
            ahead = served(stack, user) - before
            list(pool.map(lambda id_: client.post(f"/v1/responses/{id_}/cancel"), crowd))

    assert ahead < 20  # a few; with nobody to hold them back all two hundred
    unfinished = "SELECT 1 FROM jobs WHERE account_id = %s AND kind = 'turn.run' AND finished_at IS NULL"
    wait_until(lambda: not stack.rows(unfinished, user.account))


def test_a_turn_that_kills_its_worker_ends_dead_while_others_are_served(stack: Installation, user: User):
    stack.start_workers(2, "tokens=20,rate=0,exit_at=0,trigger=poison")
    others = []

    with Supervisor(stack) as supervisor:
        poison = user.stream("poison")
        while not poison.ended:
            # Its waits between two attempts are not what is tested here.
            stack.rows("UPDATE jobs SET run_at = now() WHERE account_id = %s AND state = 'queued' RETURNING id",
                       user.account)  # fmt: skip
            others.append(user.stream("hello").end())

    assert supervisor.restarts == 5
    assert poison.end().types[-1] == "response.failed"
    assert all(other.types[-1] == "response.completed" for other in others)
    (job,) = stack.rows("SELECT state, attempt, failures FROM jobs WHERE id = %s", poison.job_id)
    assert job == {"state": "dead", "attempt": 6, "failures": 5}
    assert user.get(f"/v1/responses/{poison.response_id}")["status"] == "failed"


@ON_REDIS
def test_one_turn_of_a_conversation_runs_at_a_time_in_order(stack: Installation, user: User):
    stack.start_worker("tokens=10,rate=40")
    conversation = user.post("/v1/conversations", {})["id"]
    turns = [user.stream(f"turn {number}", conversation=conversation) for number in (1, 2, 3)]

    ordered = sorted([turn.end() for turn in turns], key=lambda turn: turn.job_id)

    for earlier, later in itertools.pairwise(ordered):
        began = later.events[later.types.index("response.in_progress")].at
        assert began >= earlier.events[-1].at - 0.1  # two streams are read by two threads
    items = user.get(f"/v1/conversations/{conversation}/items?order=asc")["data"]
    assert [item["role"] for item in items] == ["user", "assistant"] * 3
    asked = [item["content"][0]["text"] for item in items if item["role"] == "user"]
    assert asked == [user.get(f"/v1/responses/{turn.response_id}/input_items")["data"][0]["content"][0]["text"]
                     for turn in ordered]  # fmt: skip


@ON_REDIS
def test_a_turn_waits_for_the_one_that_it_follows(stack: Installation, user: User):
    stack.start_worker("tokens=20,rate=40")
    first = user.stream("one two three")
    first.wait_for_events(deltas=2)

    second = user.stream("four", previous_response_id=first.response_id)
    second.wait_for_events(type_="response.queued")
    assert not first.ended

    assert second.end().events[second.types.index("response.in_progress")].at >= first.end().events[-1].at - 0.1
    assert second.events[-1].json()["response"]["usage"]["input_tokens"] == 3 + 20 + 1


@ON_REDIS
def test_a_turn_of_a_conversation_survives_its_worker_and_the_next_one_still_waits(stack: Installation, user: User):
    stack.start_workers(1, "tokens=40,rate=40")
    conversation = user.post("/v1/conversations", {})["id"]
    first = user.stream("one", conversation=conversation)
    first.wait_for_events(deltas=5)
    second = user.stream("two", conversation=conversation)

    with Supervisor(stack):
        stack.runner(first.job_id).kill()
        first.end()
        second.end()

    assert first.text == second.text == scripted_text(40)
    assert second.events[second.types.index("response.in_progress")].at >= first.events[-1].at - 0.1
    assert second.events[-1].json()["response"]["usage"]["input_tokens"] == 1 + 40 + 1
