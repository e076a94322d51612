"""What the adversary can do to the arena: each fault strikes one of its targets, is held for some seconds, and healed.

A fault heals itself as far as it can without waiting; `whole` tells when its target works again.
"""

import resource
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.chaos.arena import LINKS, QUEUE_LINKS, SCHEDULERS, WEBS, WORKERS, Arena
from models.jobs.attempts import LEASE
from ops.servers import Valkey

#: Seconds that a killed part stays away, at least and at most: a supervisor is fast, an orchestrator is not.
AWAY = (0.2, 3.0)

#: Seconds that a link is bad.
BAD = (2.0, 7.0)

#: Seconds that a worker is frozen: its leases end, and others have taken over when it wakes.
BEYOND_LEASE = (LEASE + 2, LEASE + 4)

#: Seconds that a scheduler is frozen: another one leads when it wakes.
BEYOND_LEAD = (11.0, 12.0)

#: Seconds that anything else is frozen: some of those who wait for it give up, some don't.
SHORT = (1.0, 7.0)

#: Seconds by which everything is late on a slow link, each way.
LATE = 0.15

#: Seconds that pass where nothing is held.
AT_ONCE = (0.05, 0.05)

#: Bytes that the journal's disk still takes before it is full: some events, and half of one.
LEFT = 4096

ENGINES = WORKERS[:2]

Step = Callable[[Arena, str], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to break something.

    targets  what it may strike: parts or links, several at once joined by `+`
    hold     seconds until it is healed, at least and at most
    """

    name: str
    what: str
    targets: Sequence[str]
    hold: tuple[float, float]
    strike: Step
    heal: Step

    @property
    def is_of_links(self) -> bool:
        """Whether its targets are links and not parts."""
        return self.targets[0] in (*LINKS, *QUEUE_LINKS)


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was struck, by time.monotonic; `healed_at` is when what it had struck answered again."""

    name: str
    target: str
    struck_at: float
    healed_at: float


def parts_of(target: str) -> list[str]:
    """The parts or links of a target."""
    return target.split("+")


def kill(arena: Arena, target: str) -> None:
    """Kill -9 each part."""
    for name in parts_of(target):
        arena.kill(name)


def start(arena: Arena, target: str) -> None:
    """Start each part again."""
    for name in parts_of(target):
        arena.start(name)


def start_empty(arena: Arena, target: str) -> None:
    """Start each part again, servers without the data that they had."""
    for name in parts_of(target):
        part = arena.children[name].service
        if isinstance(part, Valkey):
            shutil.rmtree(part.folder)
    start(arena, target)


def freeze(arena: Arena, target: str) -> None:
    """SIGSTOP each part."""
    for name in parts_of(target):
        arena.freeze(name)


def thaw(arena: Arena, target: str) -> None:
    """SIGCONT each part."""
    for name in parts_of(target):
        arena.thaw(name)


def leave(arena: Arena, target: str) -> None:
    """TERM to each part."""
    for name in parts_of(target):
        arena.ask_to_leave(name)


def let_be(arena: Arena, target: str) -> None:
    """It heals by itself."""


def fill_disk(arena: Arena, target: str) -> None:
    """Let the files of Valkey grow no further: its next write but few fails, as on a full disk.

    By a limit of the process rather than a small file system: that takes no rights, and fails in the same place.
    """
    limit_files(arena, target, largest_file(arena.folder / "valkey") + LEFT)


def free_disk(arena: Arena, target: str) -> None:
    """There is space again."""
    if arena.children[target].running:
        limit_files(arena, target, resource.RLIM_INFINITY)


def limit_files(arena: Arena, name: str, size: int) -> None:
    """How large the files of a part may grow, in bytes."""
    _, hard = resource.prlimit(arena.children[name].pid, resource.RLIMIT_FSIZE)
    resource.prlimit(arena.children[name].pid, resource.RLIMIT_FSIZE, (size if hard < 0 else min(size, hard), hard))


def largest_file(folder: Path) -> int:
    """Bytes of the largest file in a folder."""
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def on_link(step: str, **options: object) -> Step:
    """What a link's method of that name does."""

    def act(arena: Arena, target: str) -> None:
        for name in parts_of(target):
            getattr(arena.links[name], step)(**options)

    return act


def whole(arena: Arena, fault: Fault, target: str) -> bool:
    """Whether all that a fault had struck answers again."""
    parts = [] if fault.is_of_links else parts_of(target)
    return all(name not in arena.leaving and arena.children[name].ready() for name in parts)


def faults(links: Sequence[str]) -> Mapping[str, Fault]:
    """All faults by name, for an arena with these links."""
    table = [*deaths(), *freezes(), *others(), *bad_links(links)]
    if QUEUE_LINKS[0] in links:
        table += [
            Fault("kill-rabbitmq", "kill -9 RabbitMQ", ["rabbitmq"], AWAY, kill, start),
            Fault("freeze-rabbitmq", "SIGSTOP RabbitMQ", ["rabbitmq"], SHORT, freeze, thaw),
        ]
    return {fault.name: fault for fault in table}


def deaths() -> list[Fault]:
    """Everything that can be killed."""
    crews, valkey = one_or_all(ENGINES), ["valkey"]
    with_worker = [f"valkey+{crew}" for crew in crews]
    return [
        Fault("kill-worker", "kill -9 a worker with an engine, or both", crews, AWAY, kill, start),
        Fault("kill-beside", "kill -9 the worker of all other pools", ["beside"], AWAY, kill, start),
        Fault("kill-web", "kill -9 a web process, or both", one_or_all(WEBS), AWAY, kill, start),
        Fault("kill-scheduler", "kill -9 a scheduler, or both", one_or_all(SCHEDULERS), AWAY, kill, start),
        Fault("kill-postgres", "kill -9 Postgres", ["postgres"], AWAY, kill, start),
        Fault("kill-valkey", "kill -9 Valkey, which keeps its data", valkey, AWAY, kill, start),
        Fault("wipe-valkey", "kill -9 Valkey and delete its data", valkey, AWAY, kill, start_empty),
        Fault("wipe-with-worker", "the same, and kill -9 workers with engines", with_worker, AWAY, kill, start_empty),
    ]


def freezes() -> list[Fault]:
    """Everything that can be stopped and continued."""
    workers = [*ENGINES, "beside"]
    return [
        Fault("freeze-worker", "SIGSTOP a worker for longer than its leases", workers, BEYOND_LEASE, freeze, thaw),
        Fault("freeze-scheduler", "SIGSTOP a scheduler beyond its lead", SCHEDULERS, BEYOND_LEAD, freeze, thaw),
        Fault("freeze-web", "SIGSTOP a web process", WEBS, SHORT, freeze, thaw),
        Fault("freeze-postgres", "SIGSTOP Postgres and its sessions", ["postgres"], SHORT, freeze, thaw),
        Fault("freeze-valkey", "SIGSTOP Valkey", ["valkey"], SHORT, freeze, thaw),
    ]


def others() -> list[Fault]:
    """What happens to parts that live on, or leave in good order."""
    return [
        Fault("deploy-workers", "TERM to a worker; its successor starts", WORKERS, AT_ONCE, leave, let_be),
        Fault("deploy-web", "TERM to a web process; its successor starts", WEBS, AT_ONCE, leave, let_be),
        Fault("fill-disk", "the journal's disk is full", ["valkey"], BAD, fill_disk, free_disk),
    ]


def bad_links(links: Sequence[str]) -> list[Fault]:
    """What can happen between parts."""
    slow, deafen = on_link("delay", seconds=LATE), on_link("stall", up=False)
    cut, refuse, tear, heal = (on_link(step) for step in ("cut", "refuse", "tear", "heal"))
    return [
        Fault("slow-link", "all comes 150 ms late, each way", links, BAD, slow, heal),
        Fault("stall-link", "nothing passes, connections stay open", links, BAD, on_link("stall"), heal),
        Fault("deaf-link", "answers are held back, and then lost", links, BAD, deafen, cut_and_heal),
        Fault("cut-link", "all connections are cut", links, AT_ONCE, cut, heal),
        Fault("refuse-link", "all connections are cut and new ones refused", links, BAD, refuse, heal),
        Fault("tear-link", "connections are cut in the middle of an answer", links, (0.05, 2.0), tear, heal),
    ]


def one_or_all(names: Sequence[str]) -> list[str]:
    """Each as a target, and all together as one."""
    return [*names, "+".join(names)]


def cut_and_heal(arena: Arena, target: str) -> None:
    """What was held back is lost."""
    on_link("cut")(arena, target)
    on_link("heal")(arena, target)
