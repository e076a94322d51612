"""What a turn costs: CPU seconds by process. They say the same on a busy machine as on a quiet one.

One client at a time shows what a turn costs by itself, and many at once what it costs where turns share round trips.
"""

from collections.abc import Iterator, Mapping, Sequence

import psutil  # type: ignore[import-untyped]
import redis

from bench.bench import Bench
from bench.figures import Figure
from bench.load import closed_loop
from bench.stack import FORGETFUL, Platform

TOKENS, ROUNDS, TURNS, WARM_UP = 20, 5, 200, 100

SCRIPT = f"tokens={TOKENS},rate=0"

#: Clients, each of an account of its own.
AT_ONCE = (1, 16)

#: What a turn costs in each process, and in all.
Costs = Mapping[str, float]


def cost(bench: Bench) -> Sequence[Figure]:
    """CPU milliseconds and trips to Valkey a turn."""
    with bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        meter = Meter(bench, platform)
        return [figure for at_once in AT_ONCE for figure in meter.figures(at_once)]


class Meter:
    """Reads what the processes have used so far."""

    def __init__(self, bench: Bench, platform: Platform) -> None:
        self._progress = bench.progress
        self._platform = platform
        self._valkey = redis.Redis.from_url(platform.settings.redis_address)
        files = sorted((bench.stack.folder / "run").glob("*.pid"))
        self._trees = {file.stem: psutil.Process(int(file.read_text())) for file in files}

    def figures(self, at_once: int) -> Iterator[Figure]:
        """A turn's costs by process, with so many at once."""
        self._run(at_once, WARM_UP)
        rounds = []
        for number in range(ROUNDS):
            self._progress.step(number, ROUNDS, f"rounds of {TURNS} turns, {at_once} at once")
            rounds.append(self._round(at_once))
        for name in rounds[0]:
            unit = "" if name == TRIPS else "ms"
            yield Figure(f"{name} a turn, {at_once} at once", unit, [costs[name] for costs in rounds])

    def _round(self, at_once: int) -> Costs:
        before = self._used()
        self._run(at_once, TURNS)
        return {name: (used - before[name]) / TURNS for name, used in self._used().items()}

    def _run(self, at_once: int, turns: int) -> None:
        bodies = [{"input": f"Turn {number}", **FORGETFUL} for number in range(turns)]
        closed_loop(self._platform.address, self._platform.tokens(at_once), bodies)

    def _used(self) -> Costs:
        """CPU milliseconds of each process and its children, their sum, and the trips to Valkey."""
        each = {f"CPU of {name}": 1000 * seconds(tree) for name, tree in self._trees.items()}
        stats = self._valkey.info("stats")
        return {"CPU of all": sum(each.values()), **each, TRIPS: float(stats["total_reads_processed"])}


TRIPS = "trips to Valkey"


def seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that live."""
    times = [member.cpu_times() for member in [process, *process.children(recursive=True)]]
    return float(sum(time.user + time.system for time in times))
