"""What more worker processes bring.

Turns that last, as with an engine on a machine of its own, leave the cores idle: there the platform should carry as
many times the turns as there are workers. Turns that cost nothing but the platform's own work are bound by the cores,
which all workers here share: there more workers should at least not hurt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.bench import Bench
from bench.figures import Figure
from bench.load import Load
from bench.scenarios.throughput import SCRIPT, SLOTS, TOKENS, TURNS, round_of, speeds
from bench.stack import FORGETFUL

WORKERS, ROUNDS = (1, 2, 4), 3

#: Turns of 0.2 seconds, as many for each worker, so that a round takes about as long with any number of them.
SECONDS, LASTING_TURNS = 0.2, 40
LASTING = f"tokens={TOKENS},rate={TOKENS / SECONDS:.0f}"

#: What one worker can carry of them.
LIMIT = SLOTS[0] / SECONDS


def scaling(bench: Bench) -> Sequence[Figure]:
    """Finished turns a second by the number of workers."""
    lasting, costing = {}, {}
    for workers in WORKERS:
        clients = 2 * SLOTS[0] * workers
        lasting[workers] = speeds(rounds(bench, workers, LASTING_TURNS * workers, clients, script=LASTING))
        costing[workers] = speeds(rounds(bench, workers, TURNS, 2 * SLOTS[0] * WORKERS[-1], script=SCRIPT))
    grown = [most / least for most, least in zip(lasting[WORKERS[-1]], lasting[WORKERS[0]], strict=True)]
    return [
        *(figure(f"finished turns of {SECONDS} s, workers: {workers}", lasting[workers]) for workers in WORKERS),
        Figure(f"{WORKERS[-1]} workers ÷ 1, turns of {SECONDS} s", "x", grown),
        *(figure(f"finished turns that only cost, workers: {workers}", costing[workers]) for workers in WORKERS),
    ]


def figure(what: str, samples: Sequence[float]) -> Figure:
    """Turns a second."""
    return Figure(what, "/s", samples)


def rounds(bench: Bench, workers: int, turns: int, clients: int, **changes: Any) -> list[Load]:
    """Rounds of so many turns with so many workers, after one that warms up."""
    loads: list[Load] = []
    settings: Mapping[str, Any] = {"engine": "scripted", "slots": SLOTS[0], **changes}
    with bench.stack.platform(workers=workers, **settings) as platform:
        for number in range(-1, ROUNDS):
            bench.progress.step(max(number, 0), ROUNDS, f"rounds of {turns} turns, workers: {workers}")
            loads.append(round_of(platform, turns, FORGETFUL, clients))
    return loads[1:]
