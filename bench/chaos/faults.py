"""The faults that can be injected: each affects one of its targets, lasts for some seconds, and is healed.

Healing does not wait for its effect; `has_recovered` returns whether the target works again.
"""

import contextlib
import random
import resource
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CalledProcessError

from redis import RedisError

from bench.chaos import evictions
from bench.chaos.endpoint_faults import endpoint_faults
from bench.chaos.fault import AT_ONCE, DEAD, DISTURBED, Fault, FaultStep, do_nothing, names_in, on_each
from bench.chaos.job_times import age_queued_jobs, is_running
from bench.chaos.processes import ENGINES, LINKS, QUEUE_LINKS, SCHEDULERS, UPSTREAM, WEBS, WORKERS
from bench.chaos.stack import ChaosStack
from bench.chaos.supervised_processes import SupervisedProcesses
from models.jobs.leases import LEASE
from ops.embedded_servers import Valkey

#: Seconds that queues are not served, so that messages collect in them.
UNSERVED = (5.0, 8.0)

#: Seconds that a worker is frozen: its leases expire, and others have taken over when it continues.
BEYOND_LEASE = (LEASE + 2, LEASE + 4)

#: Seconds that a scheduler is frozen: several firings are due meanwhile.
LONG_FREEZE = (11.0, 12.0)

#: Seconds that anything else is frozen: some of its clients time out meanwhile, some do not.
SHORT_FREEZE = (1.0, 7.0)

#: Seconds of delay on a slow link, each way.
DELAY = 0.15

#: Seconds that Postgres cannot be reached by anyone.
AWAY = (60.0, 60.0)

#: Seconds from the first blip of a connection to the second and to the third one, within one slow turn.
SECOND_BLIP, BLIPS = 4.0, (8.0, 12.0)

#: The outage of Postgres for everybody, and its links.
POSTGRES_AWAY, POSTGRES_LINKS = "postgres-away", "+".join(name for name in LINKS if name.endswith("postgres"))

#: Seconds after an outage of Postgres by which the other processes reach it later than the schedulers.
RECONNECTS_LATER = 4.0

#: The replacement of a worker by a deployment.
DEPLOY_WORKERS = "deploy-workers"

#: The jobs during which a worker is killed, and the seconds that the fault waits for one, waits between two looks, and
#: lets it run, at most.
REPORTING_KINDS, REPORTING_WAIT, REPORTING_POLL, REPORTING_TIME = ("report.build", "rollups.update"), 3.0, 0.002, 0.03

#: Processes of the previous version beside those of this one, which ones, and for how many seconds. That version has
#: faults that this one has not, so nothing else happens meanwhile.
TWO_VERSIONS, OLD, ROLLED_BACK = "two-versions", ["inference-b+web-b", "light+scheduler-b", "web-a"], (8.0, 12.0)

#: The promotions of a standby, which lose commits.
PROMOTION, LOST_CLAIMS = "promote-standby", "lose-claims"

#: Seconds that a worker is frozen whose claims are lost, from the failover on: another one has claimed its jobs when it
#: continues, and its lease has not expired.
WITHIN_LEASE = (LEASE - 5, LEASE - 3)

#: Faults that delete parts of journals.
EVICTIONS = frozenset({"evict-hashes", "evict-streams", "evict-shard", "evict-lru"})

#: Bytes that the journal's disk can still store before it is full: some events, and half of one.
DISK_SPACE_LEFT = 4096

kill = on_each(ChaosStack.kill)
start = on_each(ChaosStack.start)
freeze = on_each(ChaosStack.freeze)
thaw = on_each(ChaosStack.thaw)
terminate = on_each(ChaosStack.terminate)
downgrade = on_each(lambda stack, name: stack.run_code(name, stack.previous))
upgrade = on_each(lambda stack, name: stack.run_code(name, None))
fail_over = on_each(lambda stack, name: stack.fail_over())
promote = on_each(lambda stack, name: stack.promote_standby())


def start_empty(stack: ChaosStack, target: str) -> None:
    """Start processes, Valkey without its data."""
    for name in names_in(target):
        service = stack.children[name].service
        if isinstance(service, Valkey):
            shutil.rmtree(service.folder)
    start(stack, target)


def lose_messages(stack: ChaosStack, target: str) -> None:
    """Remove the messages of all queues, under jobs that have waited for long, and start processes."""
    age_queued_jobs(stack.database)
    with contextlib.suppress(CalledProcessError, RedisError):  # the broker is down, and may lose them itself
        stack.servers.purge_queues(stack.broker)
    start(stack, target)


def kill_reporting(stack: ChaosStack, target: str) -> None:
    """Kill a worker while it builds a report or updates the sums of reports; if neither begins, at the end."""
    deadline = time.monotonic() + REPORTING_WAIT
    while time.monotonic() < deadline and not is_running(stack.database, REPORTING_KINDS):
        time.sleep(REPORTING_POLL)
    time.sleep(random.uniform(0, REPORTING_TIME))
    kill(stack, target)


def lose_claims(stack: ChaosStack, target: str) -> None:
    """Promote a standby that lacks the last claims of a worker; its messages go to another one meanwhile."""
    postgres, worker = names_in(target)
    fail_over(stack, postgres)
    freeze(stack, worker)
    promote(stack, postgres)
    cut(stack, f"{worker}-rabbitmq")


def continue_worker(stack: ChaosStack, target: str) -> None:
    """Continue the worker whose claims are lost."""
    thaw(stack, names_in(target)[-1])


def fill_disk(stack: ChaosStack, target: str) -> None:
    """Limit the size of Valkey's files, so that one of its next writes fails as on a full disk.

    A limit of the process needs no privileges, unlike a small file system, and fails in the same call.
    """
    limit_file_size(stack, target, largest_file(stack.folder / "valkey") + DISK_SPACE_LEFT)


def free_disk(stack: ChaosStack, target: str) -> None:
    """Remove the limit."""
    if stack.children[target].running:
        limit_file_size(stack, target, resource.RLIM_INFINITY)


def limit_file_size(stack: ChaosStack, name: str, size: int) -> None:
    """Limit the size of a process's files, in bytes."""
    _, hard = resource.prlimit(stack.children[name].pid, resource.RLIMIT_FSIZE)
    resource.prlimit(stack.children[name].pid, resource.RLIMIT_FSIZE, (size if hard < 0 else min(size, hard), hard))


def largest_file(folder: Path) -> int:
    """Return the size of the largest file in a folder, in bytes."""
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def on_link(method: str, **options: object) -> FaultStep:
    """Return a step that calls a method of each link of its target."""
    return on_each(lambda stack, name: getattr(stack.links[name], method)(**options))


cut, refuse, tear, heal = (on_link(step) for step in ("cut", "refuse", "tear", "heal"))


def blip(stack: ChaosStack, target: str) -> None:
    """Cut links now and once more; the third time is at the fault's end."""
    cut(stack, target)
    threading.Timer(SECOND_BLIP, cut, [stack, target]).start()


def has_recovered(stack: SupervisedProcesses, fault: Fault, target: str) -> bool:
    """Return whether the target of a fault works again."""
    names = [name for name in names_in(target) if name in stack.children]
    return all(name not in stack.stopping and stack.children[name].ready() for name in names)


def faults(links: Sequence[str], *, history: bool = True, spills: bool = False) -> Mapping[str, Fault]:
    """Return all faults by name, for a stack with these links.

    history  whether the previous version is known
    spills   whether there is an endpoint
    """
    workers = (*WORKERS, UPSTREAM) if spills else WORKERS
    all_faults = [*kills(), *freezes(workers), *other_faults(workers), *evictions_of_valkey(), *link_faults(links)]
    if spills:
        all_faults += endpoint_faults()
    if history:
        all_faults.append(
            Fault(
                TWO_VERSIONS, "some processes of the previous version", OLD, ROLLED_BACK, downgrade, upgrade, alone=True
            )
        )
    if QUEUE_LINKS[0] in links:
        all_faults += [
            Fault("blip-rabbitmq", "cut all connections to RabbitMQ three times", QUEUE_LINKS[:1], BLIPS, blip, cut),
            Fault("kill-rabbitmq", "kill -9 RabbitMQ", ["rabbitmq"], DEAD, kill, start),
            Fault("freeze-rabbitmq", "SIGSTOP RabbitMQ", ["rabbitmq"], SHORT_FREEZE, freeze, thaw),
            Fault(
                LOST_CLAIMS,
                "promote-standby under a frozen worker, whose messages another one gets",
                ["postgres+inference-a"],
                WITHIN_LEASE,
                lose_claims,
                continue_worker,
            ),
        ]
    return {fault.name: fault for fault in all_faults}


def kills() -> list[Fault]:
    """Return the faults that kill processes."""
    engines, valkey = one_or_all(ENGINES), ["valkey"]
    with_worker = [f"valkey+{engine}" for engine in engines]
    return [
        Fault("kill-worker", "kill -9 a worker with an engine, or both", engines, DEAD, kill, start),
        Fault("kill-light", "kill -9 the worker of all other pools", ["light"], DEAD, kill, start),
        Fault(
            "kill-reporting", "kill-light while it builds a report or its sums", ["light"], DEAD, kill_reporting, start
        ),
        Fault(
            "lose-messages", "kill-light, and all queues lose their messages", ["light"], UNSERVED, kill, lose_messages
        ),
        Fault("kill-web", "kill -9 a web process, or both", one_or_all(WEBS), DEAD, kill, start),
        Fault("kill-scheduler", "kill -9 a scheduler, or both", one_or_all(SCHEDULERS), DEAD, kill, start),
        Fault("kill-postgres", "kill -9 Postgres", ["postgres"], DEAD, kill, start),
        Fault("kill-valkey", "kill -9 Valkey, which keeps its data", valkey, DEAD, kill, start),
        Fault("wipe-valkey", "kill -9 Valkey and delete its data", valkey, DEAD, kill, start_empty),
        Fault("wipe-with-worker", "wipe-valkey and kill-worker at once", with_worker, DEAD, kill, start_empty),
    ]


def freezes(workers: Sequence[str]) -> list[Fault]:
    """Return the faults that stop and continue processes."""
    return [
        Fault("freeze-worker", "SIGSTOP a worker for longer than its leases", workers, BEYOND_LEASE, freeze, thaw),
        Fault("freeze-scheduler", "SIGSTOP a scheduler for 11 s", SCHEDULERS, LONG_FREEZE, freeze, thaw),
        Fault("freeze-web", "SIGSTOP a web process", WEBS, SHORT_FREEZE, freeze, thaw),
        Fault("freeze-postgres", "SIGSTOP Postgres and its sessions", ["postgres"], SHORT_FREEZE, freeze, thaw),
        Fault("freeze-valkey", "SIGSTOP Valkey", ["valkey"], SHORT_FREEZE, freeze, thaw),
    ]


def other_faults(workers: Sequence[str]) -> list[Fault]:
    """Return the other faults: a deployment that replaces processes, and a full disk."""
    return [
        Fault(DEPLOY_WORKERS, "TERM to a worker, and start it again", workers, AT_ONCE, terminate, do_nothing),
        Fault("deploy-web", "TERM to a web process, and start it again", WEBS, AT_ONCE, terminate, do_nothing),
        Fault(
            PROMOTION, "kill -9 Postgres; its standby lacks the last commits", ["postgres"], DEAD, fail_over, promote
        ),
        Fault("fill-disk", "the journal's disk is full", ["valkey"], DISTURBED, fill_disk, free_disk),
    ]


def evictions_of_valkey() -> list[Fault]:
    """Return the faults that evict parts of running journals."""
    evict_hashes, evict_streams, evict_shards = evictions.evict_hashes, evictions.evict_streams, evictions.evict_shards
    limit, unlimit, valkey = evictions.limit_memory, evictions.unlimit_memory, ["valkey"]
    return [
        Fault("evict-hashes", "Valkey evicts fences of journals", valkey, AT_ONCE, evict_hashes, do_nothing),
        Fault("evict-streams", "Valkey evicts events of journals", valkey, AT_ONCE, evict_streams, do_nothing),
        Fault("evict-shard", "Valkey evicts a shard stream", valkey, AT_ONCE, evict_shards, do_nothing),
        Fault("evict-lru", "Valkey is short of memory, and evicts anything", valkey, DISTURBED, limit, unlimit),
    ]


def link_faults(links: Sequence[str]) -> list[Fault]:
    """Return the faults that disturb connections between processes."""
    slow, hold_answers = on_link("delay", seconds=DELAY), on_link("stall", up=False)
    return [
        Fault("slow-link", "all data is 150 ms late, each way", links, DISTURBED, slow, heal),
        Fault("stall-link", "no data passes, connections stay open", links, DISTURBED, on_link("stall"), heal),
        Fault("one-way-link", "answers are held back, and then lost", links, DISTURBED, hold_answers, cut_and_heal),
        Fault("cut-link", "all connections are cut", links, AT_ONCE, cut, heal),
        Fault("refuse-link", "all connections are cut and new ones refused", links, DISTURBED, refuse, heal),
        Fault(POSTGRES_AWAY, "no process reaches Postgres for 60 s", [POSTGRES_LINKS], AWAY, refuse, heal_in_turn),
        Fault("tear-link", "connections are cut in the middle of an answer", links, (0.05, 2.0), tear, heal),
    ]


def one_or_all(names: Sequence[str]) -> list[str]:
    """Return each name as a target, and all of them as one."""
    return [*names, "+".join(names)]


def heal_in_turn(stack: ChaosStack, target: str) -> None:
    """Heal the schedulers' link, and the others later: no lease may expire because its worker reconnects later."""
    first, rest = (
        "+".join(name for name in names_in(target) if name.startswith("scheduler") == is_first)
        for is_first in (True, False)
    )
    heal(stack, first)
    time.sleep(RECONNECTS_LATER)
    heal(stack, rest)


def cut_and_heal(stack: ChaosStack, target: str) -> None:
    """Heal a link; the data that it held back is lost."""
    on_link("cut")(stack, target)
    on_link("heal")(stack, target)
