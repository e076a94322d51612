"""Turns leave a flooded local model for an endpoint, if they may, and each token comes once."""

import pytest

from bench.harness.endpoint.client import scripted_endpoint
from bench.harness.processes import ConfiguredScheduler, changed
from bench.harness.sse import scripted_text
from models.platform.upstreams import Upstream
from tests.journeys.stack import ON_REDIS

pytestmark = ON_REDIS

NAME, MODEL, TOKENS = "remote", "big", 20
SPILL_AFTER = 1.0
TURNS = 8


@pytest.fixture
def endpoint():
    """An idle endpoint with the local engine's answers."""
    with scripted_endpoint(tokens=TOKENS, rate=0) as endpoint:
        yield endpoint


@pytest.fixture
def routed(stack, endpoint):
    """A slow local worker, a worker of the endpoint, and a scheduler that routes."""
    for table in ("circuit_breakers", "spill_days", "turn_counts"):
        stack.rows(f"WITH gone AS (DELETE FROM {table}) SELECT 1")
    upstream = Upstream(NAME, endpoint.url, (MODEL,), slots=8, residency="any")
    upstreams = {"upstreams": (upstream,)}
    stack.start_worker(f"tokens={TOKENS},rate=10")
    stack.start_worker("", "upstream", **upstreams)

    def route(**settings):
        options = {**upstreams, "spill_to": NAME, "spill_after": SPILL_AFTER, **settings}
        return stack.start(ConfiguredScheduler(changed(stack.settings, **options), "router"))[0]

    yield route
    if "router" in stack.children:
        stack.remove(stack.children["router"])


def rows_of(stack, turns):
    ids = [turn["job_id"] for turn in turns]
    return stack.rows(
        "SELECT id, arguments -> 'route' AS route, started_at, finished_at - created_at AS took FROM jobs"
        " WHERE id = ANY(%s) ORDER BY id",
        ids,
    )


def test_turns_that_may_leave_are_answered_in_time_and_the_others_stay_in_order(stack, user, endpoint, routed):
    # Given a model with two slots that answers a turn in two seconds, and an idle endpoint
    routed()
    # When eight turns that may leave come, and eight that may not
    free = [user.create_response() for _ in range(TURNS)]
    local = [user.create_response(residency="local") for _ in range(TURNS)]
    ended = [user.wait_for_end(turn["id"]) for turn in [*free, *local]]

    # Then each has the whole answer once
    assert {turn["status"] for turn in ended} == {"completed"}
    assert {turn["output"][0]["content"][0]["text"] for turn in ended} == {scripted_text(TOKENS)}
    # And those that may not leave stayed, in their order
    stayed = rows_of(stack, local)
    assert [row["route"] for row in stayed] == [None] * TURNS
    begun = {row["id"]: row["started_at"] for row in stayed}
    assert [begun[turn["job_id"]] for turn in local] == sorted(begun.values())
    # And most others were answered by the endpoint, which was asked once for each, and say so
    moved = [turn for turn in ended[:TURNS] if "sangha" in turn]
    assert len(moved) >= TURNS // 2
    assert {(turn["sangha"]["route"]["endpoint"], turn["sangha"]["route"]["moves"]) for turn in moved} == {(NAME, 1)}
    assert len(endpoint.book()) == len(moved)
    assert max(row["took"].total_seconds() for row in rows_of(stack, free)) < SPILL_AFTER + 6


def test_no_more_turns_leave_than_the_share_allows(stack, user, endpoint, routed):
    routed(spill_share=0.25)

    turns = [user.create_response() for _ in range(TURNS)]
    ended = [user.wait_for_end(turn["id"]) for turn in turns]

    assert {turn["status"] for turn in ended} == {"completed"}
    assert 1 <= sum("sangha" in turn for turn in ended) <= TURNS // 4
    assert len(endpoint.book()) <= TURNS // 4


def test_turns_of_an_account_that_became_local_come_home(stack, user, endpoint, routed):
    # Given turns that wait for an endpoint whose slots are all taken
    endpoint.change(rate=4)
    routed()
    turns = [user.create_response() for _ in range(TURNS)]

    # When the account lets no turn leave any more
    user.request("PATCH", "/v1/account", json={"residency": "local"})
    asked = len(endpoint.book())

    # Then no further turn is sent there
    assert {user.wait_for_end(turn["id"])["status"] for turn in turns} == {"completed"}
    assert len(endpoint.book()) - asked <= 1  # one that had passed the check when the account changed
