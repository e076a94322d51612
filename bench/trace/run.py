"""Run turns on a platform whose processes are instrumented."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from bench.harness.client import Client
from bench.harness.processes import ConfiguredProcess, ConfiguredScheduler, ConfiguredWeb, ConfiguredWorker, changed
from bench.harness.sse import ReceivedEvent, check_stream
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform, Stack
from bench.trace import server
from bench.trace.spans import Span, load
from ops.rabbitmq import free_ports

TOKENS = 20

SCRIPT = f"tokens={TOKENS},rate=0"

PROMPT = "Write a long story about a river."

#: Seconds between two turns, so that each finds everything idle, and no span of one is attributed to the next.
PAUSE = 0.03

#: Turns before the ones that are traced.
WARM_UP = 30


@dataclass(frozen=True, slots=True)
class TracedTurn:
    """A turn as its client saw it: when it was posted (nanoseconds of the monotonic clock), and its events."""

    begin: int
    events: Sequence[ReceivedEvent]

    @property
    def end(self) -> int:
        """When its last event was received."""
        return int(self.events[-1].at * 1e9)


@dataclass(frozen=True, slots=True)
class Trace:
    """The turns, the spans of each process, and Postgres's log."""

    turns: Sequence[TracedTurn]
    spans: Mapping[str, Sequence[Span]]
    log: str = ""


def trace(stack: Stack, turns: int, engine: str = "scripted", *, log_statements: bool = False) -> Trace:
    """Run warm turns, one after another; `log_statements` has Postgres log them."""
    with instrumented_platform(stack, engine) as platform:
        client = platform.client()
        for _ in range(WARM_UP):
            run_turn(client)
        with server.log_statements(stack.settings.postgres_dsn) if log_statements else nullcontext():
            log = stack.folder / "logs" / "postgres.log"
            begin = log.stat().st_size
            done = [run_turn(client) for _ in range(turns)]
    files = {name: stack.folder / f"{name}.spans" for name in platform.children if name != "scheduler"}
    spans = {name: load(file) for name, file in files.items()}
    return Trace(done, spans, server.read_from(log, begin) if log_statements else "")


def run_turn(client: Client) -> TracedTurn:
    """Run one turn, and wait for the work that follows it."""
    begin = time.monotonic()
    events = list(client.stream(PROMPT, max_output_tokens=TOKENS, temperature=0, **WITHOUT_MEMORY))
    check_stream(events)
    time.sleep(PAUSE)
    return TracedTurn(int(begin * 1e9), events)


@contextmanager
def instrumented_platform(stack: Stack, engine: str) -> Iterator[RunningPlatform]:
    """Run a web process, a worker and the scheduler; the first two write their spans when the block ends."""
    settings = changed(stack.settings, port=free_ports(1)[0], engine=engine, script=SCRIPT)
    services = [TracedWeb(settings), TracedWorker("worker", settings, ["inference"]), ConfiguredScheduler(settings)]
    with stack.servers.running(services) as children:
        yield RunningPlatform(settings, children)


class TracedProcess(ConfiguredProcess):
    """A process that writes its spans to a file."""

    def command(self) -> list[str]:
        """Run it through `child`."""
        file = self.settings.home / f"{self.name}.spans"
        return [sys.executable, "-m", "bench.trace.child", str(file), *self.arguments]


class TracedWeb(TracedProcess, ConfiguredWeb):
    """An instrumented web process."""


class TracedWorker(TracedProcess, ConfiguredWorker):
    """An instrumented worker."""
