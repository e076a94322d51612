"""One run: start the stack and the fleet, inject faults and heal them, let all work end, and check."""

import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.chaos import breaker_rules, checker, money_rules, webhook_rules
from bench.chaos.adversary import Adversary, adversary
from bench.chaos.attacks import ATTACKS
from bench.chaos.budget_watch import BudgetWatch
from bench.chaos.excuses import Excuses, keys_during
from bench.chaos.fault import Fault
from bench.chaos.faults import LOST_CLAIMS, PROMOTION, TWO_VERSIONS, faults
from bench.chaos.fleet import Fleet
from bench.chaos.injector import TICK, FaultInjector, plan
from bench.chaos.job_times import start_extractions, start_updates_of_sums
from bench.chaos.leaks import Baseline
from bench.chaos.previous import PREVIOUS, previous_commit
from bench.chaos.processes import LINKS, QUEUE_LINKS
from bench.chaos.recovery import recovery_times
from bench.chaos.report import ChaosReport
from bench.chaos.slots import check_slots
from bench.chaos.stack import SLOTS, chaos_stack
from bench.chaos.supervised_processes import SupervisedProcesses
from bench.chaos.tool_server import ToolServer, tool_server
from bench.chaos.transcripts import ClientTranscript, Period
from bench.chaos.violations import Violation
from bench.chaos.window_watch import WindowWatch
from bench.harness.billing import bill_accounts
from bench.harness.stack import BrokerName
from bench.harness.webhook_receiver import WebhookReceiver, webhook_receiver
from bench.progress import Progress
from pipelines.inference.registry import model_name
from scheduler.periodic_thread import PeriodicThread

#: Seconds that the clients work without a fault before descriptors and threads are counted.
WARM_UP = 1.0

#: Seconds between two starts of the extraction of facts, of the update of sums, and between two moves of ended jobs.
EXTRACTION_INTERVAL, SUMS_INTERVAL, MOVE_INTERVAL = 4.0, 2.0, 10.0

#: Seconds between two looks at the budgets of trees, which are deleted some time after the trees have ended, and at the
#: windows of lanes.
BUDGET_INTERVAL, WINDOW_INTERVAL = 2.0, 0.5


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run.

    only      names of faults, or `fault:target`; empty for all
    slots     slots of each engine
    patience  seconds that all work has to end once all faults are healed: twice a lost message and a lease
    previous  the commit of the previous version
    attacks   those of the adversary; none: it is left out
    quiet     inject no fault: the adversary must get an answer to every request
    spills    whether there is an endpoint, to which turns spill
    """

    seed: int
    minutes: float
    broker: BrokerName
    only: Sequence[str] = ()
    slots: int = SLOTS
    patience: float = 120.0
    previous: str = PREVIOUS
    attacks: Sequence[str] = tuple(ATTACKS)
    quiet: bool = False
    spills: bool = True

    @property
    def previous_commit(self) -> str | None:
        """The commit of the previous version; None where there is no history."""
        return previous_commit(self.previous)

    @property
    def seconds(self) -> float:
        """How long faults are injected."""
        return self.minutes * 60

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        only = "".join(f" --only {name}" for name in self.only)
        slots = f" --slots {self.slots}" if self.slots != SLOTS else ""
        values = f"--seed {self.seed} --minutes {self.minutes:g} --broker {self.broker}"
        endpoint = "" if self.spills else " --no-endpoint"
        return f"python -m bench.chaos {values}{slots}{only}{endpoint}{self._attack_options}"

    @property
    def _attack_options(self) -> str:
        quiet = " --adversary-only" if self.quiet else ""
        if not self.attacks:
            return f"{quiet} --no-adversary"
        return quiet + "".join(f" --attack {name}" for name in self.attacks if len(self.attacks) < len(ATTACKS))

    def all_faults(self) -> Mapping[str, Fault]:
        """Return all faults by name."""
        links = [*LINKS, *QUEUE_LINKS] if self.broker == "rabbitmq" else LINKS
        return faults(links, history=self.previous_commit is not None, spills=self.spills)

    def faults(self) -> dict[str, Fault]:
        """Return the faults to inject, with the targets to choose from. Raises KeyError for an unknown name."""
        if self.quiet:
            return {}
        table = self.all_faults()
        chosen: dict[str, list[str]] = {}
        for name, _, target in (each.partition(":") for each in self.only or table):
            if target and target not in table[name].targets:
                raise KeyError(f"{name}:{target}")
            chosen.setdefault(name, []).extend([target] if target else table[name].targets)
        return {name: replace(table[name], targets=targets) for name, targets in chosen.items()}


def run(options: RunOptions, report: ChaosReport, progress: Progress) -> None:
    """Run, and fill the report. Raises ConfigurationError and Unavailable where the stack cannot start."""
    report.plan = plan(options.seed, options.seconds, options.faults())
    progress.report("starting all processes")
    chosen = options.faults()
    commit = options.previous_commit if TWO_VERSIONS in chosen else None
    standby = not chosen.keys().isdisjoint({PROMOTION, LOST_CLAIMS})
    with ExitStack() as exits:
        stack = exits.enter_context(
            chaos_stack(options.broker, options.slots, standby=standby, previous_commit=commit, spills=options.spills)
        )
        hostile = exits.enter_context(
            adversary(stack.addresses, stack.settings, faults=not options.quiet, seed=options.seed)
        )
        tools = exits.enter_context(tool_server(options.seed))
        receiver = exits.enter_context(webhook_receiver())
        receiver.answer = webhook_rules.answer
        chaos = ChaosRun(stack, options, report, progress, hostile, tools, receiver)
        try:
            chaos.run()
        finally:
            chaos.record()


class FleetShutdown(threading.Thread):
    """Waits for the end of the fleet in the background, since the stack needs the main thread."""

    def __init__(self, fleet: Fleet, patience: float) -> None:
        super().__init__(name="fleet-shutdown", daemon=True)
        self._fleet = fleet
        self._patience = patience
        self._transcripts: Sequence[ClientTranscript] = ()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Stop starting work, and wait for running work."""
        try:
            self._transcripts = self._fleet.finish(self._patience)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that reads the result
            self._error = error

    def result(self) -> Sequence[ClientTranscript]:
        """Return the transcripts of all clients. Raises the error of one of them."""
        if self._error is not None:
            raise self._error
        return self._transcripts


class ChaosRun:
    """A run on a started stack."""

    def __init__(
        self,
        stack: SupervisedProcesses,
        options: RunOptions,
        report: ChaosReport,
        progress: Progress,
        hostile: Adversary | None,
        tools: ToolServer,
        receiver: WebhookReceiver,
    ) -> None:
        self._stack = stack
        self._options = options
        self._report = report
        self._progress = progress
        self._hostile = hostile
        self._tools = tools
        self._receiver = receiver
        self._budgets = BudgetWatch(stack.database)
        self._windows = WindowWatch(stack.database)
        self._upgrades: list[Period] = []
        self._fleet = Fleet(stack.addresses, options.seed)
        last = max((planned.duration for planned in report.plan[-1:]), default=0.0)  # it begins with the shutdown
        self._shutdown = FleetShutdown(self._fleet, options.patience + last)
        self._injector = FaultInjector(stack, report.plan, options.faults(), self._end)
        self._finalize_at = math.inf

    def run(self) -> None:
        """Inject, heal, wait and check.

        The last fault is injected after the clients have stopped starting work: no later request can repair its damage.
        """
        self._progress.report("starting the clients")
        self._fleet.start()
        if self._stack.previous is not None:
            self._progress.report("replacing the previous version")
            self._stack.upgrade()
            self._upgrades.append(Period(0.0, time.monotonic()))
        else:
            self._begin_new_work()
        time.sleep(WARM_UP)
        baseline = Baseline.take(self._stack.pids, self._stack.settings)
        database = self._stack.database
        threads = [
            PeriodicThread("extractions", EXTRACTION_INTERVAL, lambda: start_extractions(database)).start(),
            PeriodicThread("sums", SUMS_INTERVAL, lambda: start_updates_of_sums(database)).start(),
            PeriodicThread("moves", MOVE_INTERVAL, self._stack.move_ended_jobs).start(),
            PeriodicThread("budgets", BUDGET_INTERVAL, self._budgets.look).start(),
            PeriodicThread("windows", WINDOW_INTERVAL, self._windows.look).start(),
        ]
        self._finalize_at = time.monotonic() + self._options.seconds / 2
        self._start_attacks()
        self._injector.run(self._options.seconds, self._finalize_and_report)
        transcripts = self._wait_for_fleet()
        for thread in threads:
            thread.stop()
        self._stack.wait_ready(self._stack.children)
        self._progress.report("checking")
        self._report.recovery = recovery_times(transcripts, self._injector.injected)
        self._report.violations += [*self._check(transcripts), *self._check_windows()]
        if self._hostile is not None:
            self._report.violations += self._hostile.violations()
        if not self._report.violations and self._options.spills:
            self._report.violations += breaker_rules.check_closed(self._stack.addresses, self._stack.settings)
        if not self._report.violations:  # stuck work holds resources, and would be reported twice
            self._report.violations += check_slots(self._stack.pids, self._stack.addresses, self._stack.settings)
            self._report.violations += baseline.check(
                self._stack.pids, self._stack.settings, self._stack.metrics_addresses
            )

    def record(self) -> None:
        """Record what happened, and keep the logs after a violation or an error."""
        self._report.injected = self._injector.injected
        self._report.restarts = self._stack.restarts
        self._report.counts = {**self._fleet.counts(), "executions": len(self._tools.executions)}
        self._report.counts |= {"webhooks": sum(len(self._receiver.received(each)) for each in self._receiver.secrets)}
        if self._stack.endpoint is not None:
            self._report.counts |= {"requests of the endpoint": len(self._stack.endpoint.book())}
        self._report.attacks = self._hostile.counts if self._hostile is not None else {}
        if self._report.violations or isinstance(sys.exception(), Exception):
            self._report.logs = str(self._stack.keep_logs())

    def _start_attacks(self) -> None:
        """Start the attacks, unless the previous version runs, which need not withstand them."""
        ending = self._shutdown.ident is not None
        if self._hostile is not None and self._stack.previous is None and self._options.attacks and not ending:
            self._hostile.start(self._options.attacks)

    def _end(self) -> None:
        """End the attacks, and let the clients finish their work."""
        if self._hostile is not None:
            self._hostile.stop()
        self._shutdown.start()

    def _wait_for_fleet(self) -> Sequence[ClientTranscript]:
        """Supervise the stack until all work has ended."""
        while self._shutdown.is_alive():
            self._stack.supervise()
            self._report_progress("waiting for the last work")
            time.sleep(TICK)
        return self._shutdown.result()

    def _check(self, transcripts: Sequence[ClientTranscript]) -> Sequence[Violation]:
        rolled_back = [
            Period(fault.struck_at, fault.healed_at) for fault in self._injector.injected if fault.name == TWO_VERSIONS
        ]
        excuses = Excuses(
            lost=keys_during(transcripts, self._stack.lost_commits),
            mixed=keys_during(transcripts, [*self._upgrades, *rolled_back]),
        )
        self._report.excused = len(excuses.lost)
        lost = [Violation("recovery", *each) for each in self._injector.lost]
        violations = checker.check(
            transcripts,
            self._stack.settings,
            self._options.patience,
            injected=self._injector.injected,
            deaths=self._stack.deaths,
            lost_commits=self._stack.lost_commits,
            excuses=excuses,
            rabbitmqctl=self._stack.rabbitmqctl,
            move=True,
            tools=self._tools,
            budgets=self._budgets,
            book=self._stack.endpoint.book() if self._stack.endpoint else None,
        )
        lost_commits = bool(self._stack.lost_commits)
        webhooks = webhook_rules.check(self._stack.database, self._receiver, lost_commits=lost_commits)
        return [*lost, *violations, *webhooks]

    def _check_windows(self) -> Iterator[Violation]:
        return self._windows.check(lost_marks=bool(self._stack.lost_commits or self._stack.deaths))

    def _begin_new_work(self) -> None:
        """Begin what no process of the previous version can do."""
        self._bill_accounts()
        self._fleet.begin_trees(self._tools)
        self._fleet.begin_batches()
        self._fleet.begin_files()
        self._fleet.begin_reports()
        self._fleet.begin_webhooks(self._receiver)
        if self._options.spills:
            self._fleet.begin_local_turns()

    def _bill_accounts(self) -> None:
        """Bill the accounts from now on: nobody can be billed while a worker of the previous version may run."""
        model, accounts = model_name(self._stack.settings), self._fleet.accounts
        bill_accounts(self._stack.database, model, accounts, price=money_rules.PRICE, limit=money_rules.LIMIT)

    def _finalize_and_report(self, state: str) -> None:
        """Report the progress, and finalize the upgrade after half of the time, between two faults."""
        due = self._stack.previous is not None and time.monotonic() >= self._finalize_at
        if due and self._injector.idle and self._stack.finalize_upgrade():
            self._injector.exclude(TWO_VERSIONS)
            self._begin_new_work()
            self._start_attacks()
        self._report_progress(state)

    def _report_progress(self, state: str) -> None:
        self._progress.report(f"{self._fleet.progress()}; {state}")
