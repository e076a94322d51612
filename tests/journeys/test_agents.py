"""Agents over real processes: MCP tools, delegations and approvals survive kills, and nothing runs twice."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from bench.harness.waiting import wait_until
from tests.journeys.shop import ALLOW, Shop, serve_shop
from tests.journeys.stack import ON_REDIS, AccountOwner, Installation

#: The script of most tests: quick answers.
SCRIPT = "tokens=8,rate=0"


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serve_shop() as shop:
        yield shop


@pytest.fixture
def workers(stack: Installation):
    """An inference worker and one of the tools pool."""
    return stack.start_worker(SCRIPT, **ALLOW), stack.start_worker(SCRIPT, "tools", **ALLOW)


def create_agent(user: AccountOwner, name: str, **fields: object) -> None:
    response = user.request("POST", "/v1/agents", json={"name": name, **fields})
    assert response.status_code == 201, response.text


def calls_of(response: dict[str, object]) -> list[tuple[str, str]]:
    """Return name and status of each call that the server ran."""
    return [(item["name"], item["status"]) for item in response["output"] if item["type"] == "mcp_call"]


@pytest.mark.usefixtures("workers")
def test_an_agent_delegates_to_others_and_reads_their_answers(stack: Installation, user: AccountOwner, shop: Shop):
    create_agent(user, "buyer", instructions="call shop__buy", tools=[shop.tool], approval="never")
    create_agent(user, "boss", instructions="call agents__buyer 3 times", agents=["buyer"], limits={"tokens": 50_000})

    follower = user.stream("go", model="agent/boss").end()

    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert calls_of(stored) == [("buyer", "completed")] * 3
    assert len(shop.calls) == 3
    tree = user.get(f"/v1/jobs/{stored['job_id']}/tree")["data"]
    kinds = sorted((job["kind"], job["depth"]) for job in tree)
    assert kinds.count(("turn.run", 1)) == kinds.count(("tool.call", 2)) == 3
    assert {job["state"] for job in tree} == {"completed"}
    sequences = [event.sequence for event in follower.events]
    assert sequences == list(range(len(sequences)))
    billed = stack.rows("SELECT count(*) AS count FROM usage_records WHERE account_id = %s", user.account)
    assert billed[0]["count"] == 4


@ON_REDIS
def test_a_tree_survives_a_killed_inference_worker(stack: Installation, user: AccountOwner, shop: Shop):
    # Given slow agents on two workers
    slow = [stack.launch_worker("tokens=30,rate=20", **ALLOW) for _ in range(2)]
    stack.start_worker(SCRIPT, "tools", **ALLOW)
    for worker in slow:
        worker.wait_ready(60)
    create_agent(user, "buyer", instructions="call shop__buy", tools=[shop.tool], approval="never")
    create_agent(user, "boss", instructions="call agents__buyer 2 times", agents=["buyer"])
    follower = user.stream("go", model="agent/boss")
    follower.wait_for_events(type_="sangha:agent.started")

    # When the worker of an agent that is answering is killed
    wait_until(lambda: len(shop.calls) == 2)
    running = "SELECT id FROM jobs WHERE account_id = %s AND kind = 'turn.run' AND depth = 1 AND state = 'running'"
    child, *_ = wait_until(lambda: stack.rows(running, user.account))
    runner = stack.runner(child["id"])
    runner.kill()
    stack.release_jobs(runner)

    # Then all is answered, and nothing was bought twice
    follower.end()
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert (stored["status"], calls_of(stored)) == ("completed", [("buyer", "completed")] * 2)
    assert len(shop.calls) == 2


@ON_REDIS
def test_a_call_whose_worker_is_killed_asks_before_it_is_repeated(stack: Installation, user: AccountOwner, shop: Shop):
    # Given a call that has arrived and is not answered
    stack.start_worker(SCRIPT, **ALLOW)
    tools = stack.start_worker(SCRIPT, "tools", **ALLOW)
    create_agent(user, "buyer", instructions="call shop__buy", tools=[shop.tool], approval="never")
    shop.open.clear()
    follower = user.stream("go", model="agent/buyer")
    wait_until(lambda: shop.calls)

    # When its worker is killed
    tools.kill()
    stack.release_jobs(tools)
    stack.start_worker(SCRIPT, "tools", **ALLOW)
    follower.wait_for_events(type_="sangha:approval.requested")

    # Then it is called again only once a person says so
    assert len(shop.calls) == 1
    shop.open.set()
    (approval,) = user.get("/v1/approvals?status=pending")["data"]
    assert approval["reason"] == "in_doubt"
    user.post(f"/v1/approvals/{approval['id']}", {"approve": True})
    follower.end()
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert calls_of(stored) == [("buy", "completed")]
    assert len(shop.calls) == 2


@ON_REDIS
def test_an_approval_outlives_all_workers_and_a_change_of_the_agent(
    stack: Installation, user: AccountOwner, shop: Shop
):
    # Given a turn that waits for an approval
    workers = [stack.start_worker(SCRIPT, **ALLOW), stack.start_worker(SCRIPT, "tools", **ALLOW)]
    fields = {"name": "buyer", "instructions": "call shop__buy", "tools": [shop.tool], "approval": "always"}
    agent = user.request("POST", "/v1/agents", json=fields).json()
    follower = user.stream("go", model="agent/buyer")
    follower.wait_for_events(type_="sangha:approval.requested")
    (approval,) = wait_until(lambda: user.get("/v1/approvals?status=pending")["data"])
    assert (approval["agent"], approval["name"], approval["decided_in"]) == ("buyer", "buy", "api")

    # When all workers die, the agent loses its tool, and decisions contradict each other at once
    for worker in workers:
        worker.kill()
        stack.release_jobs(worker)
    changed = user.request("PATCH", f"/v1/agents/{agent['id']}", json={"tools": [], "approval": "never"})
    assert changed.json()["version"] == 2
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(
            lambda approve: user.request("POST", f"/v1/approvals/{approval['id']}", json={"approve": approve}),
            [True, False] * 3,
        ))  # fmt: skip
    for pool_name in ("inference", "tools"):
        stack.start_worker(SCRIPT, pool_name, **ALLOW)
    follower.end()

    # Then one decision counts, and its turn goes on with the version that it began with
    decided = user.get(f"/v1/approvals/{approval['id']}")
    stored = user.get(f"/v1/responses/{follower.response_id}")
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 3
    approved = decided["status"] == "approved"
    assert calls_of(stored) == [("buy", "completed" if approved else "failed")]
    assert shop.calls == (["buy"] if approved else [])
    assert [event.sequence for event in follower.events] == list(range(len(follower.events)))


@ON_REDIS
def test_a_cancel_of_the_root_stops_its_agents(stack: Installation, user: AccountOwner):
    # Given an agent that waits for two others, which answer slowly
    stack.start_worker("tokens=2000,rate=20,slow=0", slots=4)
    create_agent(user, "slow")
    create_agent(user, "boss", instructions="call agents__slow 2 times", agents=["slow"])
    follower = user.stream("go", model="agent/boss")
    running = "SELECT id FROM jobs WHERE account_id = %s AND depth = 1 AND state = 'running'"
    wait_until(lambda: len(stack.rows(running, user.account)) == 2)

    # When
    start = time.monotonic()
    user.post(f"/v1/responses/{follower.response_id}/cancel")

    # Then
    wait_until(lambda: not stack.rows(running, user.account))
    elapsed = time.monotonic() - start
    follower.end()
    tree = user.get(f"/v1/jobs/{follower.job_id}/tree")["data"]
    assert {job["state"] for job in tree} == {"cancelled"}
    assert elapsed < 10  # the time itself is measured by `python -m bench cancel`


@ON_REDIS
@pytest.mark.usefixtures("workers")
def test_the_stream_of_a_tree_has_all_its_journals_and_is_resumed_by_its_ids(
    stack: Installation, user: AccountOwner, shop: Shop
):
    # Given a tree that has ended, and one that is followed from its beginning
    create_agent(user, "buyer", instructions="call shop__buy", tools=[shop.tool], approval="never")
    create_agent(user, "boss", instructions="call agents__buyer 2 times", agents=["buyer"])
    response = user.create_response("go", model="agent/boss")

    # When
    live = read_tree(stack, user, f"/v1/responses/{response['id']}?stream=true&tree=true")
    replay = read_tree(stack, user, f"/v1/jobs/{response['job_id']}/events?tree=true")
    half = len(replay) // 2
    rest = read_tree(stack, user, f"/v1/jobs/{response['job_id']}/events?tree=true", replay[half][0])

    # Then each journal is whole and in order, in each stream
    tree = user.get(f"/v1/jobs/{response['job_id']}/tree")["data"]
    for events in (live, replay, [*replay[: half + 1], *rest]):
        journals: dict[str, list[int]] = {}
        for _, event in events:
            journals.setdefault(event["job"], []).append(event["sequence_number"])
        assert set(journals) == {job["id"] for job in tree if job["kind"] != "tool.list"}
        assert all(numbers == list(range(len(numbers))) for numbers in journals.values())
    announced = f"{replay[half][0]}~job_{'0' * 32}.-1"  # a turn announces a job before it exists
    path = f"/v1/jobs/{response['job_id']}/events?tree=true"
    assert by_journal(read_tree(stack, user, path, announced)) == by_journal(rest)
    other = user.create_response("hello")
    refused = user.request("GET", f"/v1/jobs/{other['job_id']}/events?tree=true&cursor={replay[half][0]}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "cursor")


def by_journal(events: list[tuple[str, dict]]) -> list[dict]:
    """Return the payloads journal by journal: a stream may interleave the journals in any way."""
    return sorted((event for _, event in events), key=lambda event: (event["job"], event["sequence_number"]))


def read_tree(stack: Installation, user: AccountOwner, path: str, cursor: str = "") -> list[tuple[str, dict]]:
    """Read a stream to its end. Returns the ids and the payloads of its events."""
    headers = {**user.headers, **({"last-event-id": cursor} if cursor else {})}
    events, last_id = [], ""
    with httpx.stream("GET", stack.addresses()[0] + path, headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("id: "):
                last_id = line.removeprefix("id: ")
            elif line.startswith("data: {"):
                events.append((last_id, json.loads(line.removeprefix("data: "))))
    return events
