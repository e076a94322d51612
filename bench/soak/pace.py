"""The open loop: work begins at a steady rate, whether what began before has ended or not."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.soak.people import People
from bench.soak.works import MIX, Scene, Times, Work

#: Threads that wait for answers; and work that may be under way before the run is given up as overloaded.
THREADS, MOST = 128, 2_000

#: Failures whose words are kept.
KEPT = 20


@dataclass(frozen=True, slots=True)
class Count:
    """What had been done at one moment."""

    begun: int
    done: int
    failed: int


@dataclass(slots=True)
class Ledger:
    """What was done, by kind, what failed and why, and how long streamed turns took since that was asked last."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    why: list[str] = field(default_factory=list)
    begun: int = 0
    _times: list[tuple[float, float]] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """A piece of work begins."""
        with self._guard:
            self.begun += 1

    def end(self, kind: str, times: Times) -> None:
        """It came out as it should."""
        with self._guard:
            self.done[kind] += 1
            if times:
                self._times.append(times)

    def fail(self, kind: str, error: Exception) -> None:
        """It did not."""
        with self._guard:
            self.failed[kind] += 1
            if len(self.why) < KEPT:
                self.why.append(f"{kind}: {type(error).__name__}: {error}")

    def count(self) -> Count:
        """How much was done till now."""
        with self._guard:
            return Count(self.begun, self.done.total(), self.failed.total())

    def take_times(self) -> list[tuple[float, float]]:
        """Seconds to the first token and to the end, of the turns that ended since the last call."""
        with self._guard:
            times, self._times = self._times, []
        return times


class Pace:
    """Begins so many pieces of work a second, drawn from the mix by a seed, until it is stopped."""

    def __init__(self, people: People, ledger: Ledger, rate: float, seed: int) -> None:
        self._people, self._ledger, self._rate = people, ledger, rate
        self._chance = random.Random(seed)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="soak")
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pace", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        self._leave.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        began, number = time.monotonic(), 0
        names, weights = list(MIX), [weight for weight, _ in MIX.values()]
        while not self._leave.wait(max(0.0, began + number / self._rate - time.monotonic())):
            number += 1
            (kind,) = self._chance.choices(names, weights)
            count = self._ledger.count()
            if count.begun - count.done - count.failed >= MOST:
                self._ledger.begin()
                self._ledger.fail(kind, RuntimeError(f"{MOST} pieces of work were under way: the rate is too high"))
                return
            self._ledger.begin()
            scene = Scene(self._people, self._people.any(self._chance), random.Random(self._chance.random()))
            self._pool.submit(self._do, kind, MIX[kind][1], scene)

    def _do(self, kind: str, work: Work, scene: Scene) -> None:
        try:
            self._ledger.end(kind, work(scene))
        except Exception as error:  # noqa: BLE001 - it stands in the report
            self._ledger.fail(kind, error)


def told(done: Mapping[str, int]) -> Sequence[str]:
    """`turn 340`, by kind, in the order of the mix."""
    return [f"{kind} {done[kind]:,}" for kind in MIX if done.get(kind)]
