"""Work of the other pools over HTTP, from request to result: idle, with a real embedder, one request at a time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.figures import Figure
from bench.harness.client import Client
from bench.harness.sse import CheckFailed
from bench.harness.stack import LIGHT_POOLS, RunningPlatform
from bench.scenario import Bench

#: How often each request is sent at most, after how many seconds no more are, and those that warm up.
ROUNDS, ENOUGH_SECONDS, WARM_UP = 40, 3.0, 3

#: Texts of a large request for vectors, and memories of an import.
MANY = 64

TEXT = "Ada keeps bees behind the old mill, and sells their honey on Saturdays."

PoolRequest = Callable[[Client, int], Any]


def pools(bench: Bench) -> Sequence[Figure]:
    """Measure milliseconds of each kind of request."""
    with bench.stack.platform(engine="scripted", light_pools=LIGHT_POOLS) as platform:
        return [Figure(name, "ms", measure(bench, name, platform, request)) for name, request in REQUESTS.items()]


def embed(client: Client, number: int) -> None:
    """Embed one text: pool `memory`."""
    client.post("/v1/embeddings", {"model": "default", "input": f"{number}: {TEXT}"})


def embed_many(client: Client, number: int) -> None:
    """Embed many texts in one request."""
    texts = [f"{number}, {index}: {TEXT}" for index in range(MANY)]
    client.post("/v1/embeddings", {"model": "default", "input": texts})


def remember(client: Client, number: int) -> None:
    """Create many memories in one request, which is answered once they can be found."""
    client.post("/v1/memories", {"memories": [{"text": f"{number}, {index}: {TEXT}"} for index in range(MANY)]})


def search(client: Client, number: int) -> None:
    """Search a few memories: pool `recall`."""
    client.post("/v1/memories/search", {"query": f"What does Ada sell, {number}?"})


def count_tokens(client: Client, number: int) -> None:
    """Count the tokens of a prompt: pool `inference`."""
    client.post("/v1/responses/input_tokens", {"input": f"{number}: {TEXT}"})


def export(client: Client, number: int) -> None:
    """Export an account to a file: pool `reporting`."""
    job = client.post("/v1/account/export", {})
    last = list(client.follow(f"/v1/jobs/{job['id']}/events"))[-1]
    if last.type != "sangha:job.completed":
        raise CheckFailed(f"export {number} ended with {last.type}")


REQUESTS: dict[str, PoolRequest] = {
    "POST /v1/embeddings of one text": embed,
    f"POST /v1/embeddings of {MANY} texts": embed_many,
    f"POST /v1/memories of {MANY} → they can be found": remember,
    "POST /v1/memories/search": search,
    "POST /v1/responses/input_tokens": count_tokens,
    "POST /v1/account/export → file written": export,
}


def measure(bench: Bench, name: str, platform: RunningPlatform, request: PoolRequest) -> list[float]:
    """Send a request several times; returns the milliseconds of each."""
    client, times = platform.client(), list[float]()
    enough = time.monotonic() + ENOUGH_SECONDS
    for number in range(WARM_UP + ROUNDS):
        bench.progress.step(number, ROUNDS, name)
        began = time.monotonic()
        request(client, number)
        times.append((time.monotonic() - began) * 1000)
        if len(times) > 2 * WARM_UP and time.monotonic() > enough:
            break
    return times[WARM_UP:]
