"""One run: start the arena, let the fleet work, break things, heal them, let everything end, and check."""

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.chaos import checker, recovery, slots
from bench.chaos.adversary import TICK, Adversary, plan
from bench.chaos.arena import LINKS, QUEUE_LINKS, SLOTS, Arena, arena
from bench.chaos.faults import Fault, faults
from bench.chaos.fleet import Fleet
from bench.chaos.leaks import Baseline
from bench.chaos.report import Report
from bench.chaos.transcripts import Transcript
from bench.chaos.violations import Violation
from bench.progress import Progress
from bench.stack import BrokerName

#: Seconds that the clients work undisturbed, before descriptors and threads are counted.
WARM = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked for.

    only      names of faults, or `fault:target`; none is all
    slots     answers at once of each engine
    patience  seconds that everything begun gets to end once all is whole
    """

    seed: int
    minutes: float
    broker: BrokerName
    only: Sequence[str] = ()
    slots: int = SLOTS
    patience: float = 120.0  # a lost message and a lease have their time twice

    @property
    def seconds(self) -> float:
        """How long faults are struck."""
        return self.minutes * 60

    @property
    def command(self) -> str:
        """What does the same again."""
        only = "".join(f" --only {name}" for name in self.only)
        slots = f" --slots {self.slots}" if self.slots != SLOTS else ""
        return (
            f"python -m bench.chaos --seed {self.seed} --minutes {self.minutes:g} --broker {self.broker}{slots}{only}"
        )

    def faults(self) -> dict[str, Fault]:
        """The faults to strike, each with the targets to choose from. Raises KeyError for what isn't there."""
        table = faults([*LINKS, *QUEUE_LINKS] if self.broker == "rabbitmq" else LINKS)
        chosen: dict[str, list[str]] = {}
        for name, _, target in (each.partition(":") for each in self.only or table):
            if target and target not in table[name].targets:
                raise KeyError(f"{name}:{target}")
            chosen.setdefault(name, []).extend([target] if target else table[name].targets)
        return {name: replace(table[name], targets=targets) for name, targets in chosen.items()}


def run(wanted: Wanted, report: Report, progress: Progress) -> None:
    """Fill the report, as far as it goes. Raises ConfigurationError and Unavailable where no stack stands."""
    report.plan = plan(wanted.seed, wanted.seconds, wanted.faults())
    progress.say("starting all parts")
    with arena(wanted.broker, wanted.slots) as standing:
        trial = Trial(standing, wanted, report, progress)
        try:
            trial.run()
        finally:
            trial.leave()


class Finishing(threading.Thread):
    """The fleet's end, in the background: the arena needs the main thread."""

    def __init__(self, fleet: Fleet, patience: float) -> None:
        super().__init__(name="finishing", daemon=True)
        self._fleet = fleet
        self._patience = patience
        self._transcripts: Sequence[Transcript] = ()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Begin nothing new, and wait for what was begun."""
        try:
            self._transcripts = self._fleet.finish(self._patience)
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that asks
            self._error = error

    def result(self) -> Sequence[Transcript]:
        """What all clients heard. Raises what broke one of them."""
        if self._error is not None:
            raise self._error
        return self._transcripts


class Trial:
    """A run on an arena that stands."""

    def __init__(self, standing: Arena, wanted: Wanted, report: Report, progress: Progress) -> None:
        self._arena = standing
        self._wanted = wanted
        self._report = report
        self._progress = progress
        self._fleet = Fleet(standing.addresses, wanted.seed)
        self._finishing = Finishing(self._fleet, wanted.patience)
        self._adversary = Adversary(standing, report.plan, wanted.faults(), self._finishing.start)

    def run(self) -> None:
        """Break, heal, wait and check.

        The last fault strikes while the clients begin nothing more: no later request brings on what it has lost.
        """
        self._progress.say("the clients begin")
        self._fleet.start()
        time.sleep(WARM)
        baseline = Baseline.take(self._arena.pids, self._arena.settings)
        self._adversary.run(self._wanted.seconds, self._say)
        transcripts = self._finish()
        self._arena.await_ready(self._arena.children)
        self._progress.say("checking")
        self._report.recovery = dict(recovery.times(transcripts, self._adversary.struck))
        self._report.violations += self._broken(transcripts)
        if not self._report.violations:  # what is stuck holds things, and would be told of twice
            self._report.violations += self._leaked(baseline)

    def leave(self) -> None:
        """Note what there is, and keep the logs where somebody will want them."""
        self._report.struck = self._adversary.struck
        self._report.restarts = self._arena.restarts
        self._report.counts = dict(self._fleet.counts())
        if self._report.violations or isinstance(sys.exception(), Exception):
            self._report.logs = str(self._arena.keep_logs())

    def _finish(self) -> Sequence[Transcript]:
        """Look after the arena until all that was begun has ended."""
        while self._finishing.is_alive():
            self._arena.supervise()
            self._say("waiting for the last")
            time.sleep(TICK)
        return self._finishing.result()

    def _broken(self, transcripts: Sequence[Transcript]) -> Sequence[Violation]:
        lost = [Violation("comes back", *what) for what in self._adversary.lost]
        settings, struck, control = self._arena.settings, self._adversary.struck, self._arena.control
        return [*lost, *checker.check(transcripts, settings, self._wanted.patience, struck=struck, control=control)]

    def _leaked(self, baseline: Baseline) -> Sequence[Violation]:
        pids, settings = self._arena.pids, self._arena.settings
        return [*slots.lost(pids, self._arena.addresses, settings), *baseline.violations(pids, settings)]

    def _say(self, standing: str) -> None:
        self._progress.say(f"{self._fleet.say()}; {standing}")
