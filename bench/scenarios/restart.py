"""One of two web processes is stopped or killed in mid-answer: how soon its clients have caught up at the other one.

Each turn also has clients of the other web process. They show which events were available meanwhile.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.figures import Figure, at_most
from bench.harness.processes import restart as restart_process
from bench.harness.sse import CheckFailed, scripted_text
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.scenario import Bench
from bench.stream_clients import SeenEvent, StreamClients, stream_clients

#: Turns at once, tokens of each and their rate, and after how many events the process ends.
TURNS, TOKENS, RATE, END_AFTER = 20, 120, 20, 25

#: Clients of each turn at each of the two web processes.
CLIENTS_A_TURN = 5

#: How often a web process is ended by each signal.
ROUNDS = 3

SIGNALS = {"ended by TERM": signal.SIGTERM, "killed": signal.SIGKILL}


@dataclass(slots=True)
class Reconnects:
    """Milliseconds from the end of a web process until each client's next event, and until it had caught up."""

    next_event: list[float] = field(default_factory=list)
    caught_up: list[float] = field(default_factory=list)
    lost: int = 0
    repeated: int = 0


def restart(bench: Bench) -> Sequence[Figure]:
    """Measure the end of a web process → clients caught up."""
    script = f"tokens={TOKENS},rate={RATE}"
    with bench.stack.platform(engine="scripted", script=script, slots=TURNS, webs=2) as platform:
        return [figure for name, number in SIGNALS.items() for figure in figures(bench, platform, name, number)]


def figures(bench: Bench, platform: RunningPlatform, name: str, number: signal.Signals) -> Iterator[Figure]:
    """Measure one signal."""
    reconnects = Reconnects()
    for done in range(ROUNDS):
        bench.progress.step(done, ROUNDS, f"web processes {name}")
        with stream_clients() as clients:
            start_turns(platform, clients)
            clients.received(END_AFTER)
            ended_at = time.monotonic()
            platform.children["web"].signal(number)
            clients.wait_ended()
            evaluate(clients.events(), TURNS * CLIENTS_A_TURN, ended_at, reconnects)
        restart_process(platform.children["web"])
    yield Figure(f"web process {name} → next event", "ms", reconnects.next_event)
    yield Figure(f"web process {name} → caught up", "ms", reconnects.caught_up)
    yield Figure(f"web process {name} → the last client caught up", "ms", reconnects.caught_up, quantile=1)
    yield Figure(f"web process {name}: events lost", "", [reconnects.lost], at_most(0))
    yield Figure(f"web process {name}: events repeated", "", [reconnects.repeated], at_most(0))


def start_turns(platform: RunningPlatform, clients: StreamClients) -> None:
    """Start the turns, each of another account, and connect the clients of the first web process, then the others."""
    turns = []
    for number, token in enumerate(platform.tokens(TURNS)):
        response = platform.client(number).post(
            "/v1/responses", {"input": "hello", "background": True, **WITHOUT_MEMORY}
        )
        turns.append((f"/v1/responses/{response['id']}?stream=true", token))
    first, second = platform.addresses
    for addresses in ([first, second], [second, first]):
        clients.connect(addresses, turns * CLIENTS_A_TURN, reconnect=True)
        clients.connected()


def evaluate(clients: Sequence[Sequence[SeenEvent]], moved: int, ended_at: float, reconnects: Reconnects) -> None:
    """Evaluate the events of a round: the first `moved` clients lost their web process. Raises CheckFailed."""
    for events in clients:
        distinct = len({event.sequence for event in events})
        reconnects.lost += events[-1].sequence + 1 - distinct
        reconnects.repeated += len(events) - distinct
        if (text := "".join(event.text for event in events)) != scripted_text(TOKENS):
            raise CheckFailed(f"a client received the text {text[:500]!r}")
    for moving, staying in zip(clients[:moved], clients[moved:], strict=True):
        if staying[-1].reconnects:
            raise CheckFailed("a client of the other web process had to reconnect")
        if moving[-1].at < ended_at:
            raise CheckFailed(f"a turn of {TOKENS / RATE:g} s ended before its web process did")
        after = [event for event in moving if event.reconnects]
        reconnects.next_event.append((after[0].at - ended_at) * 1000)
        reconnects.caught_up.append((caught_up(after, staying) - ended_at) * 1000)


def caught_up(events: Sequence[SeenEvent], staying: Sequence[SeenEvent]) -> float:
    """Return when a client that reconnected first had all events that a client of the other web process had by then."""
    received_at = {event.sequence: event.at for event in staying}
    for event in events:
        if received_at.get(event.sequence + 1, event.at) >= event.at:
            return event.at
    return events[-1].at
