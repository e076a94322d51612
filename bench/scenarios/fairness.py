"""One account posts two hundred turns at once: how long another account's single turns are delayed.

Measured twice: with a worker that runs undisturbed, and shortly after several workers were killed whose jobs nobody
released: until their rows expire, they must not widen an account's window.
"""

import time
from collections.abc import Iterator, Sequence

from bench.figures import Figure, at_most
from bench.harness.client import Client
from bench.harness.processes import restart
from bench.harness.sse import check_stream
from bench.harness.stack import RunningPlatform
from bench.scenario import Bench

BACKLOG, SINGLES = 200, 10

#: Workers that are killed before the second measurement.
KILLS = 5

#: A turn of 0.2 seconds.
TOKENS, RATE = 20, 100
DURATION = TOKENS / RATE * 1000


def fairness(bench: Bench) -> Sequence[Figure]:
    """Measure a turn behind the other account's backlog, less its duration alone."""
    figures = []
    for killed in (0, KILLS):
        with bench.stack.platform(engine="scripted", script=f"tokens={TOKENS},rate={RATE}") as platform:
            alone = sorted(measure(bench, platform))[SINGLES // 2]
            kill_workers(bench, platform, killed)
            figures.append(behind_backlog(bench, platform, alone, f", {killed} workers killed before" * bool(killed)))
    return figures


def behind_backlog(bench: Bench, platform: RunningPlatform, alone: float, condition: str) -> Figure:
    """Measure single turns behind a backlog."""
    busy = platform.client(0)
    bench.progress.report(f"posting {BACKLOG} turns of one account")
    last = [busy.post("/v1/responses", {"input": "hello", "background": True}) for _ in range(BACKLOG)][-1]
    delays = [(each - alone) / DURATION for each in measure(bench, platform)]
    name = f"delay of one account's turn by {BACKLOG} of another's, in turns' lengths{condition}"
    if busy.get(f"/v1/responses/{last['id']}")["status"] != "queued":
        name += f" (the {BACKLOG} turns ended during the measurement)"
    return Figure(name, "", delays, at_most(1), quantile=1)


def kill_workers(bench: Bench, platform: RunningPlatform, count: int) -> None:
    """Kill the worker several times and start it again, without releasing its jobs."""
    for number in range(count):
        bench.progress.step(number, count, "kills")
        platform.children["worker-1"].kill()
        restart(platform.children["worker-1"])


def measure(bench: Bench, platform: RunningPlatform) -> Iterator[float]:
    """Run turns of the other account; yields the milliseconds of each."""
    single = platform.client(1)
    for number in range(SINGLES):
        bench.progress.step(number, SINGLES, "turns of the other account")
        yield milliseconds(single)


def milliseconds(client: Client) -> float:
    """Run a turn; returns the time from its POST to its last event."""
    began = time.monotonic()
    events = list(client.stream("hello"))
    check_stream(events, TOKENS)
    return (events[-1].at - began) * 1000
