"""The faults of a cluster: hosts are cut off or lost, servers fail over, and processes are replaced."""

import time
from collections.abc import Mapping, Sequence

from bench.chaos.fault import AT_ONCE, DEAD, DISTURBED, Fault, do_nothing, names_in, on_each
from bench.chaos.faults import BEYOND_LEASE
from bench.chaos.processes import WORKERS
from bench.cluster.stack import GATEWAY, POSTGRES, RABBITMQ, S3, SANGHA, VALKEY, ClusterStack

#: Seconds after which the manager of Postgres considers a standby lost.
STANDBY_LOST_AFTER = 3.0

#: Seconds that a server stays lost which another one has replaced.
REPLACED = (6.0, 10.0)

#: The servers of which one replaces the other: a fault affects the one that is the primary, or the standby, then.
POSTGRES_PAIR, VALKEY_PAIR = ["+".join(POSTGRES)], ["+".join(VALKEY)]

cut_off = on_each(ClusterStack.cut_off)
reconnect = on_each(lambda stack, name: stack.network.reconnect(name))
lose = on_each(ClusterStack.kill_host)
restore = on_each(ClusterStack.start_host)
terminate = on_each(ClusterStack.terminate)


def lose_primary(stack: ClusterStack, target: str) -> None:
    """Lose the host of Postgres' primary; its standby is promoted."""
    stack.fail_over(cut_off=False)


def cut_primary_off(stack: ClusterStack, target: str) -> None:
    """Cut the host of Postgres' primary off, whose connections stay open; its standby is promoted."""
    stack.fail_over(cut_off=True)


def start_standby(stack: ClusterStack, target: str) -> None:
    """Start the former primary as a standby."""
    name = stack.postgres.standby.host.name
    stack.network.reconnect(name)
    stack.start_host(name)


def cut_standby_off(stack: ClusterStack, target: str) -> None:
    """Cut the standby off. Commits wait until the manager lets the primary commit alone."""
    stack.network.cut_off(stack.postgres.standby.host.name)
    time.sleep(STANDBY_LOST_AFTER)
    stack.postgres.commit_alone()


def reconnect_standby(stack: ClusterStack, target: str) -> None:
    """Connect the standby again."""
    stack.network.reconnect(stack.postgres.standby.host.name)


def lose_journal(stack: ClusterStack, target: str) -> None:
    """Lose the host of the journal's primary; the Sentinels promote the replica."""
    stack.kill_host(stack.journal_primary())


def cut_journal_off(stack: ClusterStack, target: str) -> None:
    """Cut the host of the journal's primary off; the Sentinels promote the replica."""
    stack.network.cut_off(stack.journal_primary())


def restore_journal(stack: ClusterStack, target: str) -> None:
    """Start the lost server of the journal, which follows the new primary."""
    for name in names_in(target):
        stack.network.reconnect(name)
        if not stack.children[name].running:
            stack.start_host(name)


def faults() -> Mapping[str, Fault]:
    """Return all faults by name."""
    every = [*lost_and_cut_hosts(), *failovers()]
    return {fault.name: fault for fault in every}


def lost_and_cut_hosts() -> list[Fault]:
    """Return the faults that affect any hosts."""
    most, workers = [*SANGHA, S3, GATEWAY], WORKERS
    return [
        Fault("lose-host", "kill -9 everything on a host", most, DEAD, lose, restore),
        Fault("lose-zone", "a web process, a worker and a scheduler are lost at once", zones(), DEAD, lose, restore),
        Fault("cut-host", "a host is cut off for some seconds", most, DISTURBED, cut_off, reconnect),
        Fault(
            "isolate-worker", "a worker is cut off for longer than a lease", workers, BEYOND_LEASE, cut_off, reconnect
        ),
        Fault("deploy", "TERM to a process, which is started again", SANGHA, AT_ONCE, terminate, do_nothing),
        Fault("lose-rabbitmq", "a RabbitMQ node is lost", RABBITMQ, REPLACED, lose, restore),
        Fault("cut-rabbitmq", "a RabbitMQ node is cut off", RABBITMQ, REPLACED, cut_off, reconnect),
        Fault(
            "lose-majority", "two RabbitMQ nodes are lost: no queue works", two_of(RABBITMQ), DISTURBED, lose, restore
        ),
    ]


def failovers() -> list[Fault]:
    """Return the faults after which another server takes over."""
    pair, journal = POSTGRES_PAIR, VALKEY_PAIR
    return [
        Fault("lose-primary", "Postgres' primary is lost", pair, REPLACED, lose_primary, start_standby),
        Fault("cut-primary", "Postgres' primary is cut off", pair, REPLACED, cut_primary_off, start_standby),
        Fault("cut-standby", "Postgres' standby is cut off", pair, DISTURBED, cut_standby_off, reconnect_standby),
        Fault("lose-journal", "Valkey's primary is lost", journal, REPLACED, lose_journal, restore_journal),
        Fault("cut-journal", "Valkey's primary is cut off", journal, REPLACED, cut_journal_off, restore_journal),
    ]


def two_of(names: Sequence[str]) -> list[str]:
    """Return each pair of neighbours as one target."""
    return [f"{one}+{other}" for one, other in zip(names, [*names[1:], names[0]], strict=True)]


def zones() -> list[str]:
    """Return the hosts of each of two zones as one target."""
    return [f"web-{zone}+inference-{zone}+scheduler-{zone}" for zone in "ab"]
