"""One account posts two hundred turns at once; another one's single turns should hardly notice."""

import time
from collections.abc import Sequence

from bench.bench import Bench
from bench.client import Client, check
from bench.figures import Figure, at_most

CROWD, SINGLES = 200, 10

#: A turn of 0.2 seconds.
TOKENS, RATE = 20, 100
LENGTH = TOKENS / RATE * 1000


def fairness(bench: Bench) -> Sequence[Figure]:
    """What a turn takes beside the crowd, less what it takes alone."""
    with bench.stack.platform(engine="scripted", script=f"tokens={TOKENS},rate={RATE}") as platform:
        crowd, single = platform.client(0), platform.client(1)
        alone = sorted(milliseconds(single) for _ in range(SINGLES))[SINGLES // 2]
        bench.progress.say(f"posting {CROWD} turns of one account")
        last = [crowd.post("/v1/responses", {"input": "hello", "background": True}) for _ in range(CROWD)][-1]
        delays = []
        for number in range(SINGLES):
            bench.progress.step(number, SINGLES, "turns of the other account")
            delays.append(milliseconds(single) - alone)
        crowded = crowd.get(f"/v1/responses/{last['id']}")["status"] == "queued"
    what = f"delay of one account's turn by {CROWD} of another's, in turns' lengths"
    if not crowded:
        what += " (the crowd was gone before the end)"
    return [Figure(what, "", [delay / LENGTH for delay in delays], at_most(1), quantile=1)]


def milliseconds(client: Client) -> float:
    """From a turn's POST to its end."""
    began = time.perf_counter()
    events = list(client.stream("hello"))
    check(events, TOKENS)
    return (events[-1].at - began) * 1000
