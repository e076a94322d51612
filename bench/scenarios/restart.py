"""One of two web processes is ended in mid-answer, or killed: how soon its clients have caught up at the other one.

Each turn also has clients who stay where they are. They tell what there was to be heard meanwhile.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.audience import Audience, Heard, audience
from bench.bench import Bench
from bench.client import Broken, script
from bench.figures import Figure, at_most
from bench.scenarios.recovery import start_again
from bench.stack import FORGETFUL, Platform

#: Turns at once, tokens of each and their rate, and after how many events the process ends.
TURNS, TOKENS, RATE, HEARD = 20, 120, 20, 25

#: Clients of each turn at each of the two web processes.
EACH = 5

#: How often a web process goes, in each way.
ROUNDS = 3

#: The ways to go, as they are told.
WAYS = {"ended by TERM": signal.SIGTERM, "killed": signal.SIGKILL}


@dataclass(slots=True)
class Returns:
    """Milliseconds from the end of a web process until each of its clients heard on, and had caught up."""

    following: list[float] = field(default_factory=list)
    caught_up: list[float] = field(default_factory=list)
    lost: int = 0
    repeated: int = 0


def restart(bench: Bench) -> Sequence[Figure]:
    """Web restart → clients caught up."""
    rate = f"tokens={TOKENS},rate={RATE}"
    with bench.stack.platform(engine="scripted", script=rate, slots=TURNS, webs=2) as platform:
        return [figure for way, number in WAYS.items() for figure in figures(bench, platform, way, number)]


def figures(bench: Bench, platform: Platform, way: str, number: signal.Signals) -> Iterator[Figure]:
    """One way for it to go."""
    found = Returns()
    for done in range(ROUNDS):
        bench.progress.step(done, ROUNDS, f"web processes {way}")
        with audience() as clients:
            turns = begin(platform, clients)
            clients.hear(HEARD)
            ended = go(platform, number)
            clients.end()
            look(clients.heard(), len(turns) * EACH, ended, found)
        start_again(platform.children["web"])
    yield Figure(f"web process {way} → next event", "ms", found.following)
    yield Figure(f"web process {way} → caught up", "ms", found.caught_up)
    yield Figure(f"web process {way} → the last client caught up", "ms", found.caught_up, quantile=1)
    yield Figure(f"web process {way}: events lost", "", [found.lost], at_most(0))
    yield Figure(f"web process {way}: events repeated", "", [found.repeated], at_most(0))


def begin(platform: Platform, clients: Audience) -> list[tuple[str, str]]:
    """The turns, each of another account; the clients of the first web process come first, then those of the other."""
    turns = []
    for number, token in enumerate(platform.tokens(TURNS)):
        response = platform.client(number).post("/v1/responses", {"input": "hello", "background": True, **FORGETFUL})
        turns.append((f"/v1/responses/{response['id']}?stream=true", token))
    first, second = platform.addresses
    for addresses in ([first, second], [second, first]):
        clients.come(addresses, turns * EACH, returning=True)
        clients.came()
    return turns


def go(platform: Platform, number: signal.Signals) -> float:
    """End the first web process; the time at which it was told."""
    began = time.perf_counter()
    platform.children["web"].signal(number)
    return began


def look(heard: Sequence[Sequence[Heard]], moved: int, ended: float, found: Returns) -> None:
    """What the clients of a round have heard: the first `moved` of them had to move."""
    for events in heard:
        found.lost += events[-1][1] + 1 - len({sequence for _, sequence, *_ in events})
        found.repeated += len(events) - len({sequence for _, sequence, *_ in events})
        if (text := "".join(event[2] for event in events)) != script(TOKENS):
            raise Broken(f"a client of a turn that moved has read {text[:500]!r}")
    for mover, stayer in zip(heard[:moved], heard[moved:], strict=True):
        if stayer[-1][3]:
            raise Broken("a client had to move although its web process lives")
        if mover[-1][0] < ended:
            raise Broken(f"a turn of {TOKENS / RATE:g} s was over before its clients could be moved")
        after = [event for event in mover if event[3]]
        found.following.append((after[0][0] - ended) * 1000)
        found.caught_up.append((caught_up(after, stayer) - ended) * 1000)


def caught_up(events: Sequence[Heard], stayer: Sequence[Heard]) -> float:
    """When somebody who came back first had all that somebody who stayed had by then."""
    heard_at = {sequence: at for at, sequence, *_ in stayer}
    for at, sequence, *_ in events:
        if heard_at.get(sequence + 1, at) >= at:
            return at
    return events[-1][0]
