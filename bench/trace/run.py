"""A platform whose processes have instruments, and some turns on it."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.client import Client, Heard, check
from bench.stack import FORGETFUL, Platform, Stack, ToldScheduler, ToldWeb, ToldWorker
from bench.trace import server
from bench.trace.spans import Span, load
from models.platform.settings import Settings
from ops.rabbitmq import free_ports

TOKENS = 20

SCRIPT = f"tokens={TOKENS},rate=0"

QUESTION = "Write a long story about a river."

#: Seconds between two turns, so that each finds everything idle, and nothing of one is taken for the next's.
PAUSE = 0.03

#: Turns before the ones that count.
WARM_UP = 30


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as its client saw it: when it was posted and what was heard, by the monotonic clock in nanoseconds."""

    begin: int
    heard: Sequence[Heard]

    @property
    def end(self) -> int:
        """When its last event came."""
        return int(self.heard[-1].at * 1e9)


@dataclass(frozen=True, slots=True)
class Traced:
    """The turns, and the spans of each process."""

    turns: Sequence[Turn]
    spans: Mapping[str, Sequence[Span]]
    log: str = ""


def trace(stack: Stack, turns: int, engine: str = "scripted", *, inside: bool = False) -> Traced:
    """Run so many warm turns, one after another; with what Postgres says about them, if it is to look inside."""
    with instrumented(stack, engine) as platform:
        client = platform.client()
        for _ in range(WARM_UP):
            turn(client, QUESTION)
        with server.logging(stack.settings.postgres_dsn) if inside else nullcontext():
            log = stack.folder / "logs" / "postgres.log"
            begin = log.stat().st_size
            done = [turn(client, QUESTION) for _ in range(turns)]
    files = {name: stack.folder / f"{name}.spans" for name in platform.children if name != "scheduler"}
    return Traced(done, {name: load(file) for name, file in files.items()}, server.since(log, begin) if inside else "")


def turn(client: Client, text: str) -> Turn:
    """One turn, and what others do after it."""
    begin = time.perf_counter()
    heard = list(client.stream(text, max_output_tokens=TOKENS, temperature=0, **FORGETFUL))
    check(heard)
    time.sleep(PAUSE)
    return Turn(int(begin * 1e9), heard)


@contextmanager
def instrumented(stack: Stack, engine: str) -> Iterator[Platform]:
    """Web, a worker and the scheduler; the first two leave their spans when the block ends."""
    told = stack.told(port=free_ports(1)[0], engine=engine, script=SCRIPT)
    parts = [TracedWeb(told), TracedWorker("worker", told, ["inference"]), ToldScheduler(told)]
    with stack.running(parts) as children:
        yield Platform(told, children)


def command(name: str, settings: Settings, arguments: Sequence[str]) -> list[str]:
    """A process of ours that writes its spans down."""
    file: Path = settings.home / f"{name}.spans"
    return [sys.executable, "-m", "bench.trace.child", str(file), *arguments]


class TracedWeb(ToldWeb):
    """The HTTP door with instruments."""

    def command(self) -> list[str]:
        """Through `child`."""
        return command(self.name, self.settings, self.arguments)


class TracedWorker(ToldWorker):
    """A worker with instruments."""

    def command(self) -> list[str]:
        """Through `child`."""
        return command(self.name, self.settings, self.arguments)
