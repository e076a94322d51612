"""A hostile account beside honest ones: how much longer their turns take during each attack.

Seconds without and with the attack alternate, so that whatever else changes on the machine concerns both. Nothing is
left of an attack when the next seconds without it begin: its jobs are cancelled.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from bench.chaos.adversary import Adversary, adversary
from bench.chaos.attacks import ATTACKS
from bench.figures import Figure, at_most, quantile
from bench.harness.client import Client
from bench.harness.sse import CheckFailed, check_stream, chunks, read_events
from bench.harness.stack import LIGHT_POOLS, WITHOUT_MEMORY
from bench.scenario import Bench

#: Honest clients, each of an account of its own, and the turn that they repeat: 0.2 seconds.
CLIENTS, TOKENS, RATE = 4, 20, 100

#: One turn of so many has a JSON Schema, which is compiled.
WITH_SCHEMA = 4

#: Slots of the engine: more than the honest clients need, so that a window of the adversary leaves some.
SLOTS = 8

#: Pairs of periods without and with an attack, those with --full, and the seconds of each period. The 99th percentile
#: of two pairs is that of about a hundred turns: repeat what exceeds the limit with --full.
PAIRS, FULL_PAIRS, PERIOD = 2, 8, 5.0

#: The largest ratio of the 99th percentiles with an attack and without it.
LIMIT = 2.0


def resistance(bench: Bench) -> Sequence[Figure]:
    """Measure the ratio for each selected attack alone, and for all of them together.

    Raises CheckFailed for a wrong answer to the adversary, or a loss of its victim.
    """
    script = f"tokens={TOKENS},rate={RATE}"
    with bench.stack.platform(light_pools=LIGHT_POOLS, engine="scripted", script=script, slots=SLOTS) as platform:
        clients = [HonestClient(platform.client(number), number) for number in range(CLIENTS)]
        with adversary(platform.addresses, platform.settings, faults=False) as hostile:
            figures = [
                figure
                for each in rounds(bench.attacks or [*ATTACKS])
                for figure in measure(bench, clients, hostile, each)
            ]
            if violations := hostile.violations():
                raise CheckFailed("; ".join(map(str, violations)))
    return figures


@dataclass(frozen=True, slots=True)
class Round:
    """Attacks that are measured together."""

    name: str
    attacks: Sequence[str]
    number: int
    total: int


def rounds(attacks: Sequence[str]) -> Sequence[Round]:
    """Return a round for each attack alone, and one for all of them together if they are several."""
    together = [("all attacks", attacks)] if len(attacks) > 1 else []
    named = [*((name, [name]) for name in attacks), *together]
    return [Round(name, names, number, len(named)) for number, (name, names) in enumerate(named)]


def measure(bench: Bench, clients: "Sequence[HonestClient]", hostile: Adversary, each: Round) -> Sequence[Figure]:
    """Alternate periods without and with attacks."""
    without, during = list[float](), list[float]()
    for _ in range(FULL_PAIRS if bench.full else PAIRS):
        bench.progress.step(each.number, each.total, each.name)
        without += run_clients(clients, PERIOD)
        hostile.start(each.attacks)
        during += run_clients(clients, PERIOD)
        hostile.stop()
        hostile.cancel_jobs()
    return figures_of(each.name, without, during)


def figures_of(name: str, without: Sequence[float], during: Sequence[float]) -> Sequence[Figure]:
    """Return the ratios of medians and of 99th percentiles."""
    goal = at_most(LIMIT)
    ratios = [[value / quantile(without, q) for value in during] for q in (0.5, 0.99)]
    return [
        Figure(f"{name}: a turn's time ÷ without, p50", "x", ratios[0]),
        Figure(f"{name}: a turn's time ÷ without, p99", "x", ratios[1], goal, quantile=0.99),
    ]


@dataclass(slots=True)
class HonestClient:
    """Repeats turns; one of four has a JSON Schema that no process has seen."""

    client: Client
    number: int
    turns: int = 0
    milliseconds: list[float] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def run(self, until: float) -> None:
        """Run turns until a time of the clock; the last one is finished."""
        try:
            while time.monotonic() < until:
                self._turn()
        except Exception as error:  # noqa: BLE001 - raised in the main thread
            self.errors.append(error)

    def _turn(self) -> None:
        self.turns += 1
        began = time.monotonic()
        options = {"text": new_format(f"n{self.number}_{self.turns}")} if self.turns % WITH_SCHEMA == 0 else {}
        body = {"input": "hello", "stream": True, **WITHOUT_MEMORY, **options}
        events = list(read_events(chunks(self.client.request("POST", "/v1/responses", orjson.dumps(body)))))
        self.milliseconds.append((time.monotonic() - began) * 1000)
        check_stream(events, None if options else TOKENS)


def new_format(name: str) -> Mapping[str, Any]:
    """Return a format whose schema is small, and new to the platform."""
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    return {"format": {"type": "json_schema", "name": "note", "schema": schema}}


def run_clients(clients: Sequence[HonestClient], seconds: float) -> list[float]:
    """Run all clients at the same time; returns the milliseconds of their turns. Raises CheckFailed."""
    until = time.monotonic() + seconds
    for client in clients:
        client.milliseconds.clear()
    threads = [threading.Thread(target=client.run, args=[until], daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors := [error for client in clients for error in client.errors]:
        raise CheckFailed(f"an honest client failed: {errors[0]}")
    return [each for client in clients for each in client.milliseconds]
