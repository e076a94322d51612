"""Thousands of clients on one web process: the cost of an idle one, how soon an event reaches all, 500 busy ones.

No worker runs. The events are appended to the journal as a worker appends them, so the measurement begins there; the
clients are in a process of their own.
"""

import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]

from bench.figures import Figure, at_most
from bench.harness.processes import cpu_seconds
from bench.harness.sse import CheckFailed
from bench.harness.stack import WITHOUT_MEMORY, RunningPlatform
from bench.harness.waiting import wait_until
from bench.progress import Progress
from bench.scenario import Bench
from bench.stream_clients import StreamClients, connection_limit, stream_clients
from bench.synthetic_jobs import SyntheticJobs, synthetic_jobs

#: Numbers of idle clients, and how many rounds of each.
IDLE = {1000: 3, 10_000: 2}

#: Clients that connect and disconnect before the first measurement: afterwards threads, connections and caches exist.
WARM_UP = 500

#: Events to all clients in each round.
EVENTS = 5

#: Seconds over which idle streams are watched: each stream gets one comment in that time.
WATCH_SECONDS = 15.0

#: Busy streams, events a second of each, seconds of a round, and rounds.
BUSY, RATE, SECONDS, ROUNDS = 500, 10, 4, 3

#: Events to each busy stream as fast as possible: fewer than the shards of the journal hold in all.
FLOOD = 20

#: Seconds between two groups of events.
TICK = 0.02

#: Seconds in which the web process has to notice that all clients have disconnected.
PATIENCE = 60.0


@dataclass(slots=True)
class Streams:
    """The web process, its clients, and the jobs that they follow."""

    platform: RunningPlatform
    web: psutil.Process
    clients: StreamClients
    jobs: SyntheticJobs
    progress: Progress

    def connect(self, job_ids: Sequence[str], count: int) -> None:
        """Connect clients, spread over these jobs."""
        token = self.platform.tokens(1)[0]
        paths = [f"/v1/jobs/{job_ids[number % len(job_ids)]}/events" for number in range(count)]
        self.clients.connect([self.platform.address], [(path, token) for path in paths])

    def disconnect(self) -> None:
        """Disconnect all clients, and wait until the web process has no open stream."""
        self.clients.disconnect()
        wait_until(self._all_closed, PATIENCE, interval=0.1, what="closing all streams")

    def kilobytes(self) -> float:
        """Return the memory of the web process in kB (1,000 bytes): proportional set size, without kernel memory."""
        return float(self.web.memory_full_info().pss) / 1000

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the web process so far."""
        return cpu_seconds(self.web)

    def _all_closed(self) -> bool:
        host, port = self.platform.address
        with urllib.request.urlopen(f"http://{host}:{port}/metrics") as response:
            return b"\nsangha_open_streams 0.0\n" in response.read()


@dataclass(slots=True)
class IdleSamples:
    """Samples of idle streams. Memory in kB a stream, times in seconds, CPU in milliseconds a stream.

    other_turns  milliseconds to the first event of ordinary turns, while all clients connect
    """

    memory: list[float] = field(default_factory=list)
    memory_left: list[float] = field(default_factory=list)
    connects_a_second: list[float] = field(default_factory=list)
    connect_cpu: list[float] = field(default_factory=list)
    longest_connect: list[float] = field(default_factory=list)
    other_turns: list[float] = field(default_factory=list)
    broadcasts: list[float] = field(default_factory=list)
    broadcast_cpu: list[float] = field(default_factory=list)
    disconnect_cpu: list[float] = field(default_factory=list)


def streams(bench: Bench) -> Sequence[Figure]:
    """Measure idle streams by number, then busy ones."""
    if max(IDLE) > connection_limit():
        raise CheckFailed(
            f"{max(IDLE)} streams need as many open files; the limit here is {connection_limit()} (`ulimit -Hn`)"
        )
    with bench.stack.platform(workers=0) as platform, stream_clients() as clients, synthetic_jobs(platform) as jobs:
        setup = Streams(platform, psutil.Process(platform.children["web"].pid), clients, jobs, bench.progress)
        measure_idle(setup, WARM_UP, jobs.create(1), IdleSamples(), 0.0)
        before = setup.kilobytes()
        figures: list[Figure] = []
        for count, rounds in IDLE.items():
            figures += idle_figures(setup, count, rounds, before)
        return [*figures, *job_each_figures(setup, before), *busy_figures(setup)]


def idle_figures(setup: Streams, count: int, rounds: int, before: float) -> Iterator[Figure]:
    """Measure idle streams, all of one job."""
    samples = IdleSamples()
    for number in range(rounds):
        setup.progress.step(number, rounds, f"rounds of {count} idle streams")
        measure_idle(setup, count, setup.jobs.create(1), samples, before)
    has_goal = count == max(IDLE)
    cpu = "CPU of the web process"
    yield Figure(f"{count:,} idle: memory of the web process a stream, kB", "", samples.memory, at_most(25))
    yield Figure(f"{count:,} idle: memory left after they disconnect, a stream, kB", "", samples.memory_left)
    yield Figure(f"{count:,} idle: one event to all", "s", samples.broadcasts, at_most(0.5) if has_goal else None)
    yield Figure(f"{count:,} idle: {cpu} for that, a stream", "ms", samples.broadcast_cpu)
    yield Figure(f"{count:,} connect at once: streams opened", "/s", samples.connects_a_second)
    yield Figure(f"{count:,} connect at once: the longest wait", "s", samples.longest_connect)
    yield Figure(f"{count:,} connect at once: {cpu} a stream", "ms", samples.connect_cpu)
    yield Figure(f"{count:,} connect at once: another turn's POST → first event", "ms", samples.other_turns)
    yield Figure(f"{count:,} disconnect at once: {cpu} a stream", "ms", samples.disconnect_cpu)


def measure_idle(setup: Streams, count: int, job_ids: Sequence[str], samples: IdleSamples, before: float) -> None:
    """Measure one round: all clients connect, receive some events, and disconnect."""
    cpu = setup.cpu_seconds()
    with other_turns(setup.platform) as times:
        setup.connect(job_ids, count)
        waits = setup.clients.connected()
    setup.clients.received(1)
    samples.other_turns += times
    samples.longest_connect.append(max(waits))
    samples.connects_a_second.append(count / max(waits))
    samples.connect_cpu.append((setup.cpu_seconds() - cpu) * 1000 / count)
    samples.memory.append((setup.kilobytes() - before) / count)
    for _ in range(EVENTS):
        broadcast(setup, count, job_ids, samples)
    cpu = setup.cpu_seconds()
    setup.disconnect()
    samples.disconnect_cpu.append((setup.cpu_seconds() - cpu) * 1000 / count)
    samples.memory_left.append((setup.kilobytes() - before) / count)


def broadcast(setup: Streams, count: int, job_ids: Sequence[str], samples: IdleSamples) -> None:
    """Measure one event to each job, until all clients have received it."""
    cpu = setup.cpu_seconds()
    began = setup.jobs.append(job_ids)
    received = setup.clients.received(setup.jobs.last[job_ids[0]])
    samples.broadcasts.append(max(received) - began)
    samples.broadcast_cpu.append((setup.cpu_seconds() - cpu) * 1000 / count)


def job_each_figures(setup: Streams, before: float) -> Iterator[Figure]:
    """Measure idle streams of a job each: the cost of watching so many jobs, and of their end."""
    count = max(IDLE)
    setup.progress.report(f"{count} idle streams, each of a job of its own")
    job_ids = setup.jobs.create(count)
    setup.connect(job_ids, count)
    setup.clients.connected()
    setup.clients.received(1)
    memory = (setup.kilobytes() - before) / count
    cpu = setup.cpu_seconds()
    time.sleep(WATCH_SECONDS)
    idle_share = (setup.cpu_seconds() - cpu) / WATCH_SECONDS
    cpu = setup.cpu_seconds()
    setup.jobs.end(job_ids)
    setup.clients.wait_ended()
    setup.disconnect()
    end_cpu = (setup.cpu_seconds() - cpu) * 1000 / count
    yield Figure(f"{count:,} idle, each of its own job: memory a stream, kB", "", [memory], at_most(25))
    yield Figure(f"{count:,} idle, each of its own job: share of a core", "x", [idle_share])
    yield Figure(f"{count:,} jobs end: CPU of the web process a stream", "ms", [end_cpu])


def busy_figures(setup: Streams) -> Iterator[Figure]:
    """Measure streams with a steady rate of events, and with as many as possible."""
    job_ids = setup.jobs.create(BUSY)
    setup.connect(job_ids, BUSY)
    setup.clients.connected()
    setup.clients.received(1)
    delays, cpu, speeds = [], [], []
    for number in range(ROUNDS + 1):
        setup.progress.step(number, ROUNDS, f"rounds of {BUSY} busy streams")
        speed = flood(setup, job_ids)
        round_cpu, round_delays = steady_rate(setup, job_ids)
        if number:
            speeds.append(speed)
            cpu.append(round_cpu)
            delays += round_delays
    setup.disconnect()
    offered = f"{BUSY} busy, {BUSY * RATE:,} events a second"
    yield Figure(f"{offered}: delay, p50", "ms", delays)
    yield Figure(f"{offered}: delay, p99", "ms", delays, quantile=0.99)
    yield Figure(f"{offered}: CPU of the web process an event, µs", "", cpu)
    yield Figure(f"{BUSY} busy: most events through one web process", "/s", speeds)


def flood(setup: Streams, job_ids: Sequence[str]) -> float:
    """Append events as fast as possible; returns events a second, from the first append to the last receipt."""
    began = time.monotonic()
    for _ in range(FLOOD):
        setup.jobs.append(job_ids)
    received = setup.clients.received(setup.jobs.last[job_ids[0]])
    setup.clients.events()
    return FLOOD * len(job_ids) / (max(received) - began)


def steady_rate(setup: Streams, job_ids: Sequence[str]) -> tuple[float, list[float]]:
    """Append events at RATE; returns CPU microseconds of the web process an event, and each event's delay in ms."""
    groups = round(1 / RATE / TICK)
    cpu, began = setup.cpu_seconds(), time.monotonic()
    for number in range(groups * RATE * SECONDS):
        time.sleep(max(began + number * TICK - time.monotonic(), 0))
        setup.jobs.append(job_ids[number % groups :: groups])
    setup.clients.received(setup.jobs.last[job_ids[-1]])
    delays = [delay * 1000 for delay in setup.clients.delays()]
    return (setup.cpu_seconds() - cpu) * 1e6 / len(delays), delays


@contextmanager
def other_turns(platform: RunningPlatform) -> Iterator[list[float]]:
    """Run turns of another account until the end of the block; yields the list of their ms to the first event."""
    times: list[float] = []
    ended = threading.Event()
    platform.tokens(2)

    def run() -> None:
        while not ended.is_set():
            began = time.monotonic()
            client = platform.client(1)
            first = next(client.stream("hello", **WITHOUT_MEMORY))
            times.append((first.at - began) * 1000)
            client.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()
