"""One run: start the arena, let the fleet work, break things, heal them, let everything end, and check."""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.chaos import checker, recovery
from bench.chaos.adversary import TICK, Adversary, plan
from bench.chaos.arena import LINKS, Arena, arena
from bench.chaos.faults import Fault, faults
from bench.chaos.fleet import Fleet
from bench.chaos.leaks import Baseline
from bench.chaos.report import Report
from bench.chaos.transcripts import Transcript
from bench.chaos.violations import Violation
from bench.progress import Progress
from bench.stack import BrokerName

#: Seconds that everything begun gets to end once all is whole: a lost nudge and a lease have their time twice.
PATIENCE = 120.0

#: Seconds that the clients work undisturbed, before descriptors and threads are counted.
WARM = 3.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked for. `only` are names of faults; none is all."""

    seed: int
    minutes: float
    broker: BrokerName
    only: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """How long faults are struck."""
        return self.minutes * 60

    @property
    def command(self) -> str:
        """What does the same again."""
        only = "".join(f" --only {name}" for name in self.only)
        return f"python -m bench.chaos --seed {self.seed} --minutes {self.minutes:g} --broker {self.broker}{only}"

    def faults(self) -> dict[str, Fault]:
        """The faults to strike."""
        links = [*LINKS, "all-rabbitmq"] if self.broker == "rabbitmq" else LINKS
        return {name: fault for name, fault in faults(links).items() if name in self.only or not self.only}


def run(wanted: Wanted, report: Report, progress: Progress) -> None:
    """Fill the report, as far as it goes. Raises ConfigurationError and Unavailable where no stack stands."""
    report.plan = plan(wanted.seed, wanted.seconds, wanted.faults())
    progress.say("starting all parts")
    with arena(wanted.broker) as standing:
        trial = Trial(standing, wanted, report, progress)
        try:
            trial.run()
        finally:
            trial.leave()


class Trial:
    """A run on an arena that stands."""

    def __init__(self, standing: Arena, wanted: Wanted, report: Report, progress: Progress) -> None:
        self._arena = standing
        self._report = report
        self._progress = progress
        self._seconds = wanted.seconds
        self._fleet = Fleet(standing.addresses, wanted.seed)
        self._adversary = Adversary(standing, report.plan, wanted.faults())

    def run(self) -> None:
        """Break, heal, wait and check."""
        self._fleet.start()
        self._wait(WARM)
        baseline = Baseline.take(self._arena.pids, self._arena.settings)
        self._adversary.run(self._seconds, self._say)
        self._arena.await_ready(self._arena.children)
        self._progress.say("all is whole; waiting for what was begun")
        transcripts = self._finish()
        self._progress.say("checking")
        self._report.recovery = recovery.times(transcripts, self._adversary.struck)
        self._report.violations += checker.check(
            transcripts,
            self._arena.settings,
            PATIENCE,
            struck=self._adversary.struck,
            control=self._arena.control,
        )
        self._report.violations += baseline.violations(self._arena.pids, self._arena.settings)
        self._report.violations += [Violation("comes back", *lost) for lost in self._adversary.lost]

    def leave(self) -> None:
        """Note what there is, and keep the logs where somebody will want them."""
        self._report.struck = self._adversary.struck
        self._report.restarts = self._arena.restarts
        self._report.counts = dict(self._fleet.counts())
        if self._report.violations or isinstance(sys.exception(), Exception):
            self._report.logs = str(self._arena.keep_logs())

    def _finish(self) -> Sequence[Transcript]:
        """What all clients heard, while the arena is looked after."""
        with ThreadPoolExecutor(1) as waiting:
            finished = waiting.submit(self._fleet.finish, PATIENCE)
            while not finished.done():
                self._arena.supervise()
                time.sleep(TICK)
            return finished.result()

    def _wait(self, seconds: float) -> None:
        self._progress.say("the clients begin")
        time.sleep(seconds)

    def _say(self, standing: str) -> None:
        self._progress.say(f"{self._fleet.say()}; {standing}")
