"""One run: the clients and the checks of `bench.chaos`, on a cluster."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from bench.chaos import webhook_rules
from bench.chaos.fault import Fault
from bench.chaos.injector import plan
from bench.chaos.previous import PREVIOUS
from bench.chaos.report import ChaosReport
from bench.chaos.run import ChaosRun, RunOptions
from bench.chaos.tool_server import tool_server
from bench.cluster.faults import faults
from bench.cluster.network import NETWORK
from bench.cluster.stack import cluster_stack
from bench.harness.webhook_receiver import webhook_receiver
from bench.progress import Progress


@dataclass(frozen=True, slots=True)
class ClusterOptions(RunOptions):
    """The options of a run on a cluster: RabbitMQ, no adversary and no endpoint."""

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        only = "".join(f" --only {name}" for name in self.only)
        previous = "" if self.previous == PREVIOUS else f" --previous '{self.previous}'"
        return f"python -m bench.cluster --seed {self.seed} --minutes {self.minutes:g}{only}{previous}"

    def all_faults(self) -> Mapping[str, Fault]:
        """Return all faults by name."""
        return faults()


def run(options: ClusterOptions, report: ChaosReport, progress: Progress) -> None:
    """Run, and fill the report. Raises ConfigurationError and Unavailable where the cluster cannot start.

    Call it in private namespaces.
    """
    report.plan = plan(options.seed, options.seconds, options.faults())
    progress.report("starting all hosts")
    with ExitStack() as exits:
        previous = options.previous_commit if options.previous else None
        stack = exits.enter_context(cluster_stack(options.slots, previous_commit=previous))
        tools = exits.enter_context(tool_server(options.seed, host=f"{NETWORK}.1"))
        receiver = exits.enter_context(webhook_receiver(host=f"{NETWORK}.1"))
        receiver.answer = webhook_rules.answer
        chaos = ChaosRun(stack, options, report, progress, None, tools, receiver)
        try:
            chaos.run()
        finally:
            chaos.record()
