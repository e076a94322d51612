"""One account posts two hundred turns at once: how long another account's single turns are delayed."""

import time
from collections.abc import Sequence

from bench.figures import Figure, at_most
from bench.harness.client import Client
from bench.harness.sse import check_stream
from bench.scenario import Bench

BACKLOG, SINGLES = 200, 10

#: A turn of 0.2 seconds.
TOKENS, RATE = 20, 100
DURATION = TOKENS / RATE * 1000


def fairness(bench: Bench) -> Sequence[Figure]:
    """Measure a turn behind the other account's backlog, less its duration alone."""
    with bench.stack.platform(engine="scripted", script=f"tokens={TOKENS},rate={RATE}") as platform:
        busy, single = platform.client(0), platform.client(1)
        alone = sorted(milliseconds(single) for _ in range(SINGLES))[SINGLES // 2]
        bench.progress.report(f"posting {BACKLOG} turns of one account")
        last = [busy.post("/v1/responses", {"input": "hello", "background": True}) for _ in range(BACKLOG)][-1]
        delays = []
        for number in range(SINGLES):
            bench.progress.step(number, SINGLES, "turns of the other account")
            delays.append(milliseconds(single) - alone)
        backlog_left = busy.get(f"/v1/responses/{last['id']}")["status"] == "queued"
    name = f"delay of one account's turn by {BACKLOG} of another's, in turns' lengths"
    if not backlog_left:
        name += f" (the {BACKLOG} turns ended during the measurement)"
    return [Figure(name, "", [delay / DURATION for delay in delays], at_most(1), quantile=1)]


def milliseconds(client: Client) -> float:
    """Run a turn; returns the time from its POST to its last event."""
    began = time.monotonic()
    events = list(client.stream("hello"))
    check_stream(events, TOKENS)
    return (events[-1].at - began) * 1000
