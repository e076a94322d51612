"""A local engine with a full queue, and an endpoint to which turns spill; LiteLLM's proxy before the same endpoint.

Three measurements: how long turns wait that may leave, and whether those that may not keep their order; what Sangha and
LiteLLM add to the endpoint's first token, in alternating rounds; and the streams that fail when what generates them
dies in mid-answer. LiteLLM has a primary and a fallback; Sangha an endpoint and a local engine, of which either dies.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from bench.figures import Figure, at_most
from bench.harness.client import BackgroundStream, Client
from bench.harness.endpoint.client import ScriptedEndpoint
from bench.harness.sse import CheckFailed, ReceivedEvent, check_stream, is_delta, text_of
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.harness.waiting import wait_until
from bench.peers.completions import complete, complete_many
from bench.peers.environment import LITELLM, environment
from bench.peers.litellm_proxy import MODEL as PEER_MODEL
from bench.peers.litellm_proxy import LiteLLM, litellm
from bench.scenario import Bench
from bench.scenarios.latency import first_delta_at
from models.platform.database import Database, fetch_all
from models.platform.upstreams import Upstream
from scheduler.clock import ROUTE_INTERVAL

#: The endpoint's name and its model.
NAME, MODEL = "cloud", "cloud-1"

#: Tokens of an answer, a second of the endpoint, and of the slow local engine, which has so many slots.
TOKENS, RATE, SLOW_RATE, SLOTS = 20, 100, 10, 2

#: Turns that may leave, of as many accounts as LANES, and turns that may not, of one more account.
LEAVING, LANES, STAYING = 30, 6, 12

#: Seconds that a turn waits before it spills, and the most of the day's turns that may.
SPILL_AFTER, SHARE = 1.0, 0.75

#: Pairs of turns that measure what is added to the first token, after those that warm up.
TURNS, WARM_UP = 60, 10

#: Streams that are open when what generates them dies, the tokens of each, and those that the endpoint sends before.
STREAMS, LONG, DIES_AFTER, LONG_RATE = 8, 60, 15, 30

#: Seconds that all turns of a measurement may take.
PATIENCE = 120.0

TURN_ROWS = """
SELECT id, account_id, state, arguments -> 'route' ->> 'endpoint' AS endpoint, arguments ->> 'residency' AS residency,
       extract(epoch FROM started_at - created_at)::float AS waited,
       extract(epoch FROM finished_at - created_at)::float AS took, started_at
FROM jobs WHERE kind = 'turn.run' AND id = ANY(%(ids)s) ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Death:
    """Streams whose generator died: how many it was in the middle of, how many completed, tokens lost and repeated."""

    streams: int
    completed: int
    lost: int
    repeated: int


def hybrid(bench: Bench) -> Sequence[Figure]:
    """Measure spilling, what is added to the first token, and deaths in mid-answer."""
    python = environment(bench.progress.report, LITELLM)
    with endpoint(bench, "endpoint") as cloud, endpoint(bench, "spare-endpoint") as spare:
        figures = flood(bench, cloud)
        with (
            platform(bench, cloud, slots=8, script=f"tokens={LONG},rate={LONG_RATE}") as ours,
            litellm(bench.stack, python, cloud, spare, MODEL) as theirs,
        ):
            figures += first_tokens(bench, cloud, ours, theirs)
            figures += death_figures("LiteLLM, its primary", their_death(bench, cloud, theirs))
        figures += death_figures("ours, the endpoint", endpoint_death(bench, cloud))
        figures += death_figures("ours, the local engine", engine_death(bench, cloud))
    return figures


@contextmanager
def endpoint(bench: Bench, name: str) -> Iterator[ScriptedEndpoint]:
    """Run a scripted endpoint until the end of the block."""
    service = ScriptedEndpoint(name)
    with bench.stack.servers.running([service]):
        service.change(tokens=TOKENS, rate=RATE)
        yield service


@contextmanager
def platform(bench: Bench, cloud: ScriptedEndpoint, **changes: Any) -> Iterator[RunningPlatform]:
    """Run a platform whose turns may spill to the endpoint."""
    upstream = Upstream(NAME, cloud.url, (MODEL,), slots=32, continues=True, residency="any")
    settings = {"engine": "scripted", "upstreams": (upstream,), "spill_to": NAME, "spill_after": SPILL_AFTER}
    with bench.stack.platform(light_pools=["upstream"], **{**settings, **changes}) as running:
        yield running


def flood(bench: Bench, cloud: ScriptedEndpoint) -> list[Figure]:
    """Fill the local queue, and measure turns that may leave and turns that may not."""
    script = f"tokens={TOKENS},rate={SLOW_RATE}"
    with platform(bench, cloud, slots=SLOTS, script=script, spill_share=SHARE) as ours:
        bench.progress.report("warming up")
        list(ours.client().stream("hello", residency="local", **WITHOUT_MEMORY))
        bench.progress.report(f"{STAYING} turns that stay, {LEAVING} that may leave")
        staying = [post_turn(ours.client(), residency="local") for _ in range(STAYING)]
        leaving = [post_turn(ours.client(1 + number % LANES)) for number in range(LEAVING)]
        with closing(Database(ours.settings.postgres_dsn, size=1, name="bench")) as database:
            rows = wait_for_turns(database, [*staying, *leaving])
        return flood_figures(rows, set(leaving), cloud)


def post_turn(client: Client, **options: Any) -> str:
    """Create a turn in the background; returns the id of its job."""
    with closing(client):
        created = client.post("/v1/responses", {"input": "hello", "background": True, **WITHOUT_MEMORY, **options})
    job_id: str = created["job_id"]
    return job_id


def wait_for_turns(database: Database, ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """Wait until all turns have ended, and return their rows. Raises CheckFailed for one that has not completed."""

    def rows() -> Sequence[Mapping[str, Any]]:
        with database.connection() as connection:
            return fetch_all(connection, TURN_ROWS, {"ids": list(ids)})

    wait_until(lambda: all(row["took"] is not None for row in rows()), PATIENCE, interval=0.2, what="all turns")
    ended = rows()
    if failed := [row["id"] for row in ended if row["state"] != "completed"]:
        raise CheckFailed(f"turns have not completed: {failed}")
    return ended


def flood_figures(rows: Sequence[Mapping[str, Any]], leaving: set[str], cloud: ScriptedEndpoint) -> list[Figure]:
    """Return the figures of turns beside a full queue."""
    moved = [row for row in rows if row["endpoint"]]
    free = [row["waited"] for row in rows if row["id"] in leaving]
    staying = [row for row in rows if row["id"] not in leaving]
    own = (TOKENS - 1) / RATE
    return [
        Figure(
            "turns that may leave: POST → begin, longest", "s", free, at_most(SPILL_AFTER + ROUTE_INTERVAL), quantile=1
        ),
        Figure("moved turns: POST → answer", "s", [row["took"] for row in moved], at_most(SPILL_AFTER + own)),
        Figure("turns that stay: POST → begin", "s", [row["waited"] for row in staying]),
        Figure("turns that stay, begun out of order", "", [out_of_order(staying)], at_most(0)),
        Figure(
            "turns that stay, sent to the endpoint", "", [sum(bool(row["endpoint"]) for row in staying)], at_most(0)
        ),
        Figure("moved turns, of all", "x", [len(moved) / len(rows)], at_most(SHARE)),
        Figure(f"requests of the endpoint, for {len(moved)} moved turns", "", [len(cloud.book())]),
    ]


def out_of_order(rows: Sequence[Mapping[str, Any]]) -> int:
    """Count the turns that began before an earlier one of the same account."""
    begun = [row["started_at"] for row in rows]
    return sum(later < earlier for earlier, later in pairwise(begun))


def first_tokens(bench: Bench, cloud: ScriptedEndpoint, ours: RunningPlatform, theirs: LiteLLM) -> list[Figure]:
    """Measure the first token of the endpoint directly, through Sangha and through LiteLLM, in alternation."""
    direct: list[float] = []
    sangha: list[float] = []
    proxy: list[float] = []
    client = ours.client()
    for number in range(-WARM_UP, TURNS):
        bench.progress.step(max(number, 0), TURNS, "first tokens, three ways")
        direct.append(first_of(complete(cloud.address, "", MODEL, "hello").first))
        sangha.append(through_sangha(client))
        proxy.append(first_of(complete(theirs.address, theirs.key, PEER_MODEL, "hello").first))
    added = [through - own for through, own in zip(sangha, direct, strict=True)][WARM_UP:]
    added_by_proxy = [through - own for through, own in zip(proxy, direct, strict=True)][WARM_UP:]
    return [
        Figure("first token of the endpoint: direct", "ms", direct[WARM_UP:]),
        Figure("added to the first token: ours, as a durable job", "ms", added),
        Figure("added to the first token: LiteLLM", "ms", added_by_proxy),
        Figure("added to the first token: ours ÷ LiteLLM", "x", [median(added) / median(added_by_proxy)]),
    ]


def first_of(seconds: float | None) -> float:
    """Return milliseconds. Raises CheckFailed without a first token."""
    if seconds is None:
        raise CheckFailed("a stream had no text")
    return seconds * 1000


def through_sangha(client: Client) -> float:
    """Measure the milliseconds to the first token of a turn that names the endpoint's model."""
    began = time.monotonic()
    events = list(client.stream("hello", model=f"{NAME}/{MODEL}", **WITHOUT_MEMORY))
    check_stream(events, TOKENS)
    return (first_delta_at(events) - began) * 1000


def their_death(bench: Bench, cloud: ScriptedEndpoint, theirs: LiteLLM) -> Death:
    """Let the primary die in the middle of all streams."""
    bench.progress.report("the primary of LiteLLM dies in mid-answer")
    before = len(cloud.book())
    cloud.change(tokens=LONG, rate=LONG_RATE, fault="drop", after=DIES_AFTER)
    streams = complete_many(theirs.address, theirs.key, PEER_MODEL, STREAMS)
    cloud.heal()
    hit = sum(request.fault == "drop" for request in cloud.book(before))
    return death(hit, [stream.text for stream in streams], sum(stream.completed for stream in streams))


def endpoint_death(bench: Bench, cloud: ScriptedEndpoint) -> Death:
    """Let the endpoint die in the middle of all streams that were moved to it: the one local slot is in use."""
    script = f"tokens={LONG},rate={LONG_RATE}"
    with platform(bench, cloud, slots=1, script=script, spill_after=0.2) as ours:
        bench.progress.report("the endpoint dies in mid-answer")
        before = len(cloud.book())
        cloud.change(tokens=LONG, rate=LONG_RATE, fault="drop", after=DIES_AFTER)
        turns = [BackgroundStream(stream(ours.client(number), number)) for number in range(STREAMS)]
        events = [turn.read_to_end(PATIENCE) for turn in turns]
        cloud.heal()
        hit = len({request.text for request in cloud.book(before) if request.sent})
    return death_of_turns(hit, events)


def engine_death(bench: Bench, cloud: ScriptedEndpoint) -> Death:
    """Kill the only worker with a local engine in the middle of all streams, for good."""
    script = f"tokens={LONG},rate={LONG_RATE}"
    with platform(bench, cloud, slots=STREAMS, script=script) as ours:
        bench.progress.report("the local engine dies in mid-answer")
        cloud.change(tokens=LONG, rate=LONG_RATE, continues=True)
        turns = [BackgroundStream(stream(ours.client(number), number)) for number in range(STREAMS)]
        for turn in turns:
            turn.wait_for(is_delta, 2)
        worker = ours.children["worker-1"]
        worker.kill()
        events = [turn.read_to_end(PATIENCE) for turn in turns]
    return death_of_turns(len(turns), events)


def stream(client: Client, number: int) -> Iterator[ReceivedEvent]:
    """Stream one turn, whose text tells it apart in the endpoint's book."""
    return client.stream(f"hello {number}", **WITHOUT_MEMORY)


def death_of_turns(hit: int, turns: Sequence[Sequence[ReceivedEvent]]) -> Death:
    """Return how the streams of turns ended."""
    completed = sum(events[-1].type == "response.completed" for events in turns)
    return death(hit, [text_of(events) for events in turns], completed)


def death(hit: int, texts: Sequence[str], completed: int) -> Death:
    """Return how streams with these texts ended."""
    expected = {f"w{number}" for number in range(LONG)}
    words = [text.split() for text in texts]
    lost = sum(len(expected - set(each)) for each in words)
    return Death(hit, completed, lost, sum(len(each) - len(set(each)) for each in words))


def death_figures(what: str, result: Death) -> list[Figure]:
    """Return the figures of a death; what is promised has a goal."""
    none = at_most(0) if what.startswith("ours") else None
    begun = f"{what} dies in the middle of {result.streams} of {STREAMS} streams"
    return [
        Figure(f"{begun}: failed", "", [STREAMS - result.completed], none),
        Figure(f"{begun}: tokens lost", "", [result.lost], none),
        Figure(f"{begun}: tokens repeated", "", [result.repeated], none),
    ]
