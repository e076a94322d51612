"""Turns wait for slots, are cancelled, and run in order within a conversation, without blocking other accounts."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.harness.sse import scripted_text
from bench.harness.stack import leave_unverified_plan
from bench.harness.waiting import wait_until
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation, WorkerSupervisor, record_time


def billed_tokens(stack: Installation, job_id: str) -> list[int]:
    """Return the output tokens of each usage record of a turn."""
    rows = stack.rows("SELECT output_tokens FROM usage_records WHERE job_id = %s", job_id)
    return [row["output_tokens"] for row in rows]


def test_cancellation_frees_the_slot_and_keeps_the_partial_output(stack: Installation, user: AccountOwner):
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
    assert billed_tokens(stack, first.job_id) == [len(first.text.split())]
    user.post(f"/v1/responses/{second.response_id}/cancel")


@ON_REDIS
def test_cancelled_queued_turn_never_runs(stack: Installation, user: AccountOwner):
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
    assert billed_tokens(stack, queued.job_id) == []
    assert user.get(f"/v1/responses/{queued.response_id}")["output"] == []


def completed_jobs(stack: Installation, user: AccountOwner) -> int:
    """Return how many jobs of a user's account are completed."""
    rows = stack.rows("SELECT 1 FROM jobs WHERE account_id = %s AND state = 'completed'", user.account)
    return len(rows)


def test_one_accounts_turn_is_not_blocked_by_two_hundred_of_another(stack: Installation, user: AccountOwner):
    """A turn takes half a second: 200 turns take 50 seconds with two slots."""
    other = AccountOwner(stack)
    leave_unverified_plan(stack.settings)
    stack.start_worker("tokens=20,rate=40")
    with httpx.Client(base_url=stack.addresses()[0], headers=user.headers, timeout=60) as client:

        def create_turn(number: int) -> str:
            body = {"input": f"turn {number}", "background": True}
            return str(client.post("/v1/responses", json=body).raise_for_status().json()["id"])

        with ThreadPoolExecutor(8) as pool:
            turn_ids = list(pool.map(create_turn, range(200)))
            before, since = completed_jobs(stack, user), time.monotonic()
            single = other.stream()
            single.wait_for_events(deltas=1)
            record_time(f"one turn behind 200, {stack.broker}: until its first token", time.monotonic() - since)
            single.end()
            ahead = completed_jobs(stack, user) - before
            list(pool.map(lambda id_: client.post(f"/v1/responses/{id_}/cancel"), turn_ids))

    assert ahead < 20  # without fairness it would be 200
    unfinished = "SELECT 1 FROM jobs WHERE account_id = %s AND kind = 'turn.run' AND finished_at IS NULL"
    wait_until(lambda: not stack.rows(unfinished, user.account))


def test_turn_that_kills_its_workers_is_dead_while_others_complete(stack: Installation, user: AccountOwner):
    stack.start_workers(2, "tokens=20,rate=0,exit_at=0,trigger=poison")
    others = []

    with WorkerSupervisor(stack) as supervisor:
        poison = user.stream("poison")
        while not poison.ended:
            # The backoff between two attempts is not under test.
            stack.rows("UPDATE jobs SET run_at = now() WHERE account_id = %s AND state = 'scheduled' RETURNING id",
                       user.account)  # fmt: skip
            others.append(user.stream("hello").end())

    assert supervisor.restarts == 5
    assert poison.end().types[-1] == "response.failed"
    assert all(other.types[-1] == "response.completed" for other in others)
    (job,) = stack.rows("SELECT state, attempt, failures FROM jobs WHERE id = %s", poison.job_id)
    assert job == {"state": "dead", "attempt": 6, "failures": 5}
    assert user.get(f"/v1/responses/{poison.response_id}")["status"] == "failed"


@ON_REDIS
def test_turns_of_a_conversation_run_one_at_a_time_in_order(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=10,rate=40")
    conversation = user.post("/v1/conversations", {})["id"]
    # Given turns that are posted at once, so that any of them may be accepted first
    turns = [user.stream(f"turn {number}", conversation=conversation) for number in (1, 2, 3)]
    by_job = {turn.end().job_id: turn for turn in turns}
    # Then they run in the order in which they were accepted
    jobs = stack.rows("SELECT id, started_at, finished_at FROM jobs WHERE id = ANY(%s) ORDER BY sequence",
                      list(by_job))  # fmt: skip
    ordered = [by_job[job["id"]] for job in jobs]
    assert all(later["started_at"] > earlier["finished_at"] for earlier, later in itertools.pairwise(jobs))
    items = user.get(f"/v1/conversations/{conversation}/items?order=asc")["data"]
    assert [item["role"] for item in items] == ["user", "assistant"] * 3
    inputs = [item["content"][0]["text"] for item in items if item["role"] == "user"]
    assert inputs == [user.get(f"/v1/responses/{turn.response_id}/input_items")["data"][0]["content"][0]["text"]
                     for turn in ordered]  # fmt: skip


@ON_REDIS
def test_turn_waits_for_its_previous_response(stack: Installation, user: AccountOwner):
    stack.start_worker("tokens=20,rate=40")
    first = user.stream("one two three")
    first.wait_for_events(deltas=2)

    second = user.stream("four", previous_response_id=first.response_id)
    second.wait_for_events(type_="response.queued")
    assert not first.ended

    assert second.end().events[second.types.index("response.in_progress")].at >= first.end().events[-1].at - 0.1
    assert second.events[-1].json()["response"]["usage"]["input_tokens"] == 3 + 20 + 1


@ON_REDIS
def test_next_turn_of_a_conversation_waits_while_a_killed_turn_is_continued(stack: Installation, user: AccountOwner):
    stack.start_workers(1, "tokens=40,rate=40")
    conversation = user.post("/v1/conversations", {})["id"]
    first = user.stream("one", conversation=conversation)
    first.wait_for_events(deltas=5)
    second = user.stream("two", conversation=conversation)

    with WorkerSupervisor(stack):
        stack.runner(first.job_id).kill()
        first.end()
        second.end()

    assert first.text == second.text == scripted_text(40)
    assert second.events[second.types.index("response.in_progress")].at >= first.events[-1].at - 0.1
    assert second.events[-1].json()["response"]["usage"]["input_tokens"] == 1 + 40 + 1
