"""Work of the other pools, each through the door and back: idle, with a real embedder, one request at a time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.bench import Bench
from bench.client import Broken, Client
from bench.figures import Figure
from bench.stack import BESIDE, Platform

#: Times that each work is done at most, and seconds after which it is done no more.
ROUNDS, ENOUGH, WARM_UP = 40, 3.0, 3

#: Texts of a large request for vectors, and memories of an import.
MANY = 64

TEXT = "Ada keeps bees behind the old mill, and sells their honey on Saturdays."


def pools(bench: Bench) -> Sequence[Figure]:
    """Milliseconds of each kind of work."""
    with bench.stack.platform(engine="scripted", beside=BESIDE) as platform:
        return [Figure(what, "ms", timed(bench, what, platform, work)) for what, work in WORKS.items()]


Work = Callable[[Client, int], Any]


def embed(client: Client, number: int) -> None:
    """One vector: pool `memory`."""
    client.post("/v1/embeddings", {"model": "default", "input": f"{number}: {TEXT}"})


def embed_many(client: Client, number: int) -> None:
    """Many vectors in one request."""
    texts = [f"{number}, {place}: {TEXT}" for place in range(MANY)]
    client.post("/v1/embeddings", {"model": "default", "input": texts})


def remember(client: Client, number: int) -> None:
    """Many memories in one request, answered once they can be found."""
    client.post("/v1/memories", {"memories": [{"text": f"{number}, {place}: {TEXT}"} for place in range(MANY)]})


def search(client: Client, number: int) -> None:
    """The best of few memories: pool `recall`."""
    client.post("/v1/memories/search", {"query": f"What does Ada sell, {number}?"})


def count(client: Client, number: int) -> None:
    """The tokens of a prompt: pool `inference`."""
    client.post("/v1/responses/input_tokens", {"input": f"{number}: {TEXT}"})


def export(client: Client, number: int) -> None:
    """All that an account holds, as a file: pool `reporting`."""
    job = client.post("/v1/account/export", {})
    last = list(client.follow(f"/v1/jobs/{job['id']}/events"))[-1]
    if last.type != "sangha.job.completed":
        raise Broken(f"export {number} ended with {last.type}")


WORKS: dict[str, Work] = {
    "POST /v1/embeddings of one text": embed,
    f"POST /v1/embeddings of {MANY} texts": embed_many,
    f"POST /v1/memories of {MANY} → they can be found": remember,
    "POST /v1/memories/search": search,
    "POST /v1/responses/input_tokens": count,
    "POST /v1/account/export → file written": export,
}


def timed(bench: Bench, what: str, platform: Platform, work: Work) -> list[float]:
    """Milliseconds of each time."""
    client, times = platform.client(), list[float]()
    enough = time.perf_counter() + ENOUGH
    for number in range(WARM_UP + ROUNDS):
        bench.progress.step(number, ROUNDS, what)
        began = time.perf_counter()
        work(client, number)
        times.append((time.perf_counter() - began) * 1000)
        if len(times) > 2 * WARM_UP and time.perf_counter() > enough:
            break
    return times[WARM_UP:]
