"""Start operations at a steady rate, whether earlier ones have ended or not."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.soak.accounts import SoakAccounts
from bench.soak.operations import MIX, Context, Operation, Times

#: Threads that wait for answers, and operations that may run at once before the run fails as overloaded.
THREADS, MOST_RUNNING = 128, 2_000

#: Failures whose messages are kept.
MOST_ERRORS = 20


@dataclass(frozen=True, slots=True)
class OperationCounts:
    """How many operations had been started, done and failed at one moment."""

    started: int
    done: int
    failed: int

    @property
    def running(self) -> int:
        """Operations that have not ended."""
        return self.started - self.done - self.failed


@dataclass(slots=True)
class OperationLog:
    """Operations done and failed by kind, errors, and the times of streamed turns since they were last taken."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    started: int = 0
    _times: list[tuple[float, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Count an operation that starts."""
        with self._lock:
            self.started += 1

    def end(self, kind: str, times: Times | None) -> None:
        """Count an operation that succeeded."""
        with self._lock:
            self.done[kind] += 1
            if times:
                self._times.append(times)

    def fail(self, kind: str, error: Exception) -> None:
        """Count an operation that failed."""
        with self._lock:
            self.failed[kind] += 1
            if len(self.errors) < MOST_ERRORS:
                self.errors.append(f"{kind}: {type(error).__name__}: {error}")

    def counts(self) -> OperationCounts:
        """Return the numbers of operations so far."""
        with self._lock:
            return OperationCounts(self.started, self.done.total(), self.failed.total())

    def take_times(self) -> list[tuple[float, float]]:
        """Take the seconds to the first token and to the end of the turns that ended since the last call."""
        with self._lock:
            times, self._times = self._times, []
        return times


class OpenLoop:
    """Starts `rate` operations a second, drawn from the mix by a seed, until it is stopped."""

    def __init__(self, accounts: SoakAccounts, log: OperationLog, rate: float, seed: int) -> None:
        self._accounts, self._log, self._rate = accounts, log, rate
        self._rng = random.Random(seed)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="soak")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="open-loop", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Start no more operations, and wait for those that run."""
        self._stopping.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        began, number = time.monotonic(), 0
        names, weights = list(MIX), [weight for weight, _ in MIX.values()]
        while not self._stopping.wait(max(0.0, began + number / self._rate - time.monotonic())):
            number += 1
            (kind,) = self._rng.choices(names, weights)
            running = self._log.counts().running
            self._log.start()
            if running >= MOST_RUNNING:
                self._log.fail(kind, RuntimeError(f"{MOST_RUNNING} operations run at once: the rate is too high"))
                return
            account = self._accounts.choose(self._rng)
            context = Context(self._accounts, account, random.Random(self._rng.random()))
            self._pool.submit(self._do, kind, MIX[kind][1], context)

    def _do(self, kind: str, operation: Operation, context: Context) -> None:
        try:
            self._log.end(kind, operation(context))
        except Exception as error:  # noqa: BLE001 - it is in the report
            self._log.fail(kind, error)


def done_by_kind(done: Mapping[str, int]) -> Sequence[str]:
    """`turn 340`, by kind, in the order of the mix."""
    return [f"{kind} {done[kind]:,}" for kind in MIX if done.get(kind)]
