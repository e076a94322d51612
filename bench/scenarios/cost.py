"""CPU time of a turn by process, which is the same on a busy machine as on a quiet one.

One client at a time shows the cost of a single turn, many clients the cost where turns share round trips.
"""

from collections.abc import Iterator, Mapping, Sequence

import redis

from bench.figures import Figure
from bench.harness.processes import tree_cpu_seconds
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.load import closed_loop
from bench.scenario import Bench

TOKENS, ROUNDS, TURNS, WARM_UP = 20, 5, 200, 100

SCRIPT = f"tokens={TOKENS},rate=0"

#: Numbers of clients, each of an account of its own.
CLIENTS = (1, 16)

#: The cost of a turn by process, and of all.
Costs = Mapping[str, float]

ROUND_TRIPS = "round trips to Valkey"


def cost(bench: Bench) -> Sequence[Figure]:
    """Measure CPU milliseconds and round trips to Valkey a turn."""
    with bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        meter = Meter(bench, platform)
        return [figure for clients in CLIENTS for figure in meter.figures(clients)]


class Meter:
    """Reads what the processes have used so far."""

    def __init__(self, bench: Bench, platform: RunningPlatform) -> None:
        self._progress = bench.progress
        self._platform = platform
        self._valkey = redis.Redis.from_url(platform.settings.redis_address)
        self._pids = {name: child.pid for name, child in sorted(bench.stack.servers.children.items())}

    def figures(self, clients: int) -> Iterator[Figure]:
        """Measure the costs of a turn with so many clients."""
        self._run(clients, WARM_UP)
        rounds = []
        for number in range(ROUNDS):
            self._progress.step(number, ROUNDS, f"rounds of {TURNS} turns, {clients} at once")
            rounds.append(self._round(clients))
        for name in rounds[0]:
            unit = "" if name == ROUND_TRIPS else "ms"
            yield Figure(f"{name} a turn, {clients} at once", unit, [costs[name] for costs in rounds])

    def _round(self, clients: int) -> Costs:
        before = self._used()
        self._run(clients, TURNS)
        return {name: (used - before[name]) / TURNS for name, used in self._used().items()}

    def _run(self, clients: int, turns: int) -> None:
        bodies = [{"input": f"Turn {number}", **WITHOUT_MEMORY} for number in range(turns)]
        closed_loop(self._platform.address, self._platform.tokens(clients), bodies)

    def _used(self) -> Costs:
        """Return the CPU milliseconds of each process with its children, their sum, and round trips to Valkey."""
        each = {f"CPU of {name}": 1000 * tree_cpu_seconds(pid) for name, pid in self._pids.items()}
        stats = self._valkey.info("stats")
        return {"CPU of all": sum(each.values()), **each, ROUND_TRIPS: float(stats["total_reads_processed"])}
