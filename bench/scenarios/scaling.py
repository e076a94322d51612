"""The gain of more worker processes.

Turns that wait, as for an engine on a machine of its own, leave the cores idle: throughput should grow with the number
of workers. Turns without engine time are bound by the cores, which all workers here share: there more workers should at
least not slow it down.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Figure
from bench.harness.stack import WITHOUT_MEMORY
from bench.load import LoadResult
from bench.scenario import Bench
from bench.scenarios.throughput import SCRIPT, SLOTS, TOKENS, TURNS, run_round, turns_a_second

WORKERS, ROUNDS = (1, 2, 4), 3

#: Turns of 0.2 seconds, as many for each worker, so that a round takes about as long with any number of them.
SECONDS, WAITING_TURNS = 0.2, 40
WAITING_SCRIPT = f"tokens={TOKENS},rate={TOKENS / SECONDS:.0f}"


def scaling(bench: Bench) -> Sequence[Figure]:
    """Measure finished turns a second by the number of workers."""
    waiting, busy = {}, {}
    for workers in WORKERS:
        clients = 2 * SLOTS[0] * workers
        waiting[workers] = turns_a_second(
            rounds(bench, workers, WAITING_TURNS * workers, clients, script=WAITING_SCRIPT)
        )
        busy[workers] = turns_a_second(rounds(bench, workers, TURNS, 2 * SLOTS[0] * WORKERS[-1], script=SCRIPT))
    ratios = [most / least for most, least in zip(waiting[WORKERS[-1]], waiting[WORKERS[0]], strict=True)]
    return [
        *(Figure(f"finished turns of {SECONDS} s, workers: {each}", "/s", waiting[each]) for each in WORKERS),
        Figure(f"{WORKERS[-1]} workers ÷ 1, turns of {SECONDS} s", "x", ratios),
        *(Figure(f"finished turns without engine time, workers: {each}", "/s", busy[each]) for each in WORKERS),
    ]


def rounds(bench: Bench, workers: int, turns: int, clients: int, **changes: Any) -> list[LoadResult]:
    """Run rounds of so many turns with so many workers, after one that warms up."""
    results: list[LoadResult] = []
    settings: Mapping[str, Any] = {"engine": "scripted", "slots": SLOTS[0], **changes}
    with bench.stack.platform(workers=workers, **settings) as platform:
        for number in range(-1, ROUNDS):
            bench.progress.step(max(number, 0), ROUNDS, f"rounds of {turns} turns, workers: {workers}")
            results.append(run_round(platform, turns, WITHOUT_MEMORY, clients))
    return results[1:]
