"""Very many clients on one web process: what an idle one takes, how soon all hear of an event, what 500 busy ones get.

No worker runs. The events are appended to the journal as a worker appends them, so that what is measured begins there;
the clients live in a process of their own.
"""

import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.audience import Audience, audience, room
from bench.bench import Bench
from bench.client import Broken
from bench.figures import Figure, at_most
from bench.footprint import Footprint
from bench.narrator import Narrator, narrator
from bench.progress import Progress
from bench.stack import FORGETFUL, Platform

#: Idle clients, and rounds of them; in the last of so many each follows a job of its own.
IDLE = {1000: 3, 10_000: 2}

#: Clients that come and go before anything is measured: threads, connections and caches are there then.
WARM_UP = 500

#: Events to all, in each round.
EVENTS = 5

#: Seconds over which idle streams are watched: in each of them every stream gets one comment.
WATCHED = 15.0

#: Busy streams, events that each gets, a second and in all, and rounds.
BUSY, EACH, SECONDS, ROUNDS = 500, 10, 4, 3

#: Events to each busy stream as fast as they can be told: fewer than the shards of the journal remember in all.
FLOOD = 20

#: Seconds between two groups of events.
TICK = 0.02

#: Seconds until the web process has to have noticed that all have left.
PATIENCE = 60.0


@dataclass(slots=True)
class Hosted:
    """The web process with all that looks at it."""

    platform: Platform
    web: Footprint
    clients: Audience
    narrator: Narrator
    progress: Progress

    def come(self, job_ids: Sequence[str], count: int) -> None:
        """So many clients, which follow these jobs by turns."""
        token = self.platform.tokens(1)[0]
        paths = [f"/v1/jobs/{job_ids[number % len(job_ids)]}/events" for number in range(count)]
        self.clients.come([self.platform.address], [(path, token) for path in paths])

    def gone(self) -> None:
        """Wait until the web process has no stream any more."""
        deadline = time.monotonic() + PATIENCE
        while self._open():
            if time.monotonic() > deadline:
                raise Broken("streams stay open although their clients have left")
            time.sleep(0.1)

    def _open(self) -> bool:
        host, port = self.platform.address
        with urllib.request.urlopen(f"http://{host}:{port}/metrics") as answer:
            return b"\nsangha_open_streams 0.0\n" not in answer.read()


@dataclass(slots=True)
class Idle:
    """What rounds of idle streams came to. Memory in kB a stream, times in seconds, CPU in milliseconds a stream.

    beside  milliseconds to the first event of ordinary turns, while all connect
    """

    each: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    storms: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    to_all: list[float] = field(default_factory=list)
    to_all_cpu: list[float] = field(default_factory=list)
    departure_cpu: list[float] = field(default_factory=list)


def streams(bench: Bench) -> Sequence[Figure]:
    """Idle streams by number, then busy ones."""
    if max(IDLE) > room():
        raise Broken(f"{max(IDLE)} streams need as many open files; here a process has {room()} (`ulimit -Hn`)")
    with bench.stack.platform(workers=0) as platform, audience() as clients, narrator(platform) as teller:
        hosted = Hosted(platform, Footprint(platform.children["web"]), clients, teller, bench.progress)
        idle(hosted, WARM_UP, teller.jobs(1), Idle(), 0.0)
        before = hosted.web.kilobytes()
        figures: list[Figure] = []
        for count, rounds in IDLE.items():
            figures += idle_figures(hosted, count, rounds, before)
        return [*figures, *own_jobs(hosted, before), *busy_figures(hosted)]


def idle_figures(hosted: Hosted, count: int, rounds: int, before: float) -> Iterator[Figure]:
    """So many idle streams, all of one job."""
    found = Idle()
    for number in range(rounds):
        hosted.progress.step(number, rounds, f"rounds of {count} idle streams")
        idle(hosted, count, hosted.narrator.jobs(1), found, before)
    goal = count == max(IDLE)
    yield Figure(f"{count:,} idle: memory of the web process a stream, kB", "", found.each, at_most(30))
    yield Figure(f"{count:,} idle: what stays of it when they have left, kB", "", found.kept)
    yield Figure(f"{count:,} idle: one event to all", "s", found.to_all, at_most(1) if goal else None)
    yield Figure(f"{count:,} idle: CPU of the web process for that, a stream", "ms", found.to_all_cpu)
    yield Figure(f"{count:,} connect at once: streams opened", "/s", found.storms)
    yield Figure(f"{count:,} connect at once: the longest wait", "s", found.longest)
    yield Figure(f"{count:,} connect at once: CPU of the web process a stream", "ms", found.cpu)
    yield Figure(f"{count:,} connect at once: another turn's POST → first event", "ms", found.beside)
    yield Figure(f"{count:,} leave at once: CPU of the web process a stream", "ms", found.departure_cpu)


def idle(hosted: Hosted, count: int, job_ids: Sequence[str], found: Idle, before: float) -> None:
    """One round: all come, all hear something, all leave."""
    began = hosted.web.seconds()
    with turns_beside(hosted.platform) as beside:
        hosted.come(job_ids, count)
        waits = hosted.clients.came()
    hosted.clients.hear(1)
    found.beside += beside
    found.longest.append(max(waits))
    found.storms.append(count / max(waits))
    found.cpu.append((hosted.web.seconds() - began) * 1000 / count)
    found.each.append((hosted.web.kilobytes() - before) / count)
    for _ in range(EVENTS):
        event(hosted, count, job_ids, found)
    began = hosted.web.seconds()
    hosted.clients.leave()
    hosted.gone()
    found.departure_cpu.append((hosted.web.seconds() - began) * 1000 / count)
    found.kept.append((hosted.web.kilobytes() - before) / count)


def event(hosted: Hosted, count: int, job_ids: Sequence[str], found: Idle) -> None:
    """One event to each job, heard by all."""
    cpu = hosted.web.seconds()
    began = hosted.narrator.tell(job_ids)
    heard = hosted.clients.hear(hosted.narrator.last[job_ids[0]])
    found.to_all.append(max(heard) - began)
    found.to_all_cpu.append((hosted.web.seconds() - cpu) * 1000 / count)


def own_jobs(hosted: Hosted, before: float) -> Iterator[Figure]:
    """The same clients, each with a job of its own: what it takes to look after so many jobs, and to end them."""
    count = max(IDLE)
    hosted.progress.say(f"{count} idle streams, each of a job of its own")
    job_ids = hosted.narrator.jobs(count)
    hosted.come(job_ids, count)
    hosted.clients.came()
    hosted.clients.hear(1)
    each = (hosted.web.kilobytes() - before) / count
    cpu = hosted.web.seconds()
    time.sleep(WATCHED)
    idling = (hosted.web.seconds() - cpu) / WATCHED
    cpu = hosted.web.seconds()
    hosted.narrator.end(job_ids)
    hosted.clients.end()
    hosted.clients.leave()
    hosted.gone()
    ending = (hosted.web.seconds() - cpu) * 1000 / count
    yield Figure(f"{count:,} idle, each of its own job: memory a stream, kB", "", [each], at_most(30))
    yield Figure(f"{count:,} idle, each of its own job: share of a core", "x", [idling])
    yield Figure(f"{count:,} jobs end: CPU of the web process a stream", "ms", [ending])


def busy_figures(hosted: Hosted) -> Iterator[Figure]:
    """Streams that all hear something all the time, at a steady rate and as fast as it goes."""
    job_ids = hosted.narrator.jobs(BUSY)
    hosted.come(job_ids, BUSY)
    hosted.clients.came()
    hosted.clients.hear(1)
    delays, cpu, speeds = [], [], []
    for number in range(ROUNDS + 1):
        hosted.progress.step(number, ROUNDS, f"rounds of {BUSY} busy streams")
        speed = flood(hosted, job_ids)
        used, heard = steady(hosted, job_ids)
        if number:
            speeds.append(speed)
            cpu.append(used)
            delays += heard
    hosted.clients.leave()
    hosted.gone()
    offered = f"{BUSY} busy, {BUSY * EACH:,} events a second"
    yield Figure(f"{offered}: delay, p50", "ms", delays)
    yield Figure(f"{offered}: delay, p99", "ms", delays, quantile=0.99)
    yield Figure(f"{offered}: CPU of the web process an event, µs", "", cpu)
    yield Figure(f"{BUSY} busy: events through one web process at most", "/s", speeds)


def flood(hosted: Hosted, job_ids: Sequence[str]) -> float:
    """Events a second, from the first append to the last that is heard."""
    began = time.perf_counter()
    for _ in range(FLOOD):
        hosted.narrator.tell(job_ids)
    heard = hosted.clients.hear(hosted.narrator.last[job_ids[0]])
    hosted.clients.heard()
    return FLOOD * len(job_ids) / (max(heard) - began)


def steady(hosted: Hosted, job_ids: Sequence[str]) -> tuple[float, list[float]]:
    """CPU microseconds of the web process an event, and each event's delay in milliseconds."""
    groups = round(1 / EACH / TICK)
    cpu, began = hosted.web.seconds(), time.perf_counter()
    for number in range(groups * EACH * SECONDS):
        time.sleep(max(began + number * TICK - time.perf_counter(), 0))
        hosted.narrator.tell(job_ids[number % groups :: groups])
    hosted.clients.hear(hosted.narrator.last[job_ids[-1]])
    delays = [delay * 1000 for delay in hosted.clients.delays()]
    return (hosted.web.seconds() - cpu) * 1e6 / len(delays), delays


@contextmanager
def turns_beside(platform: Platform) -> Iterator[list[float]]:
    """Ordinary turns of another account, one after the other until the block ends: milliseconds to the first event."""
    found: list[float] = []
    ended = threading.Event()
    platform.tokens(2)

    def turns() -> None:
        while not ended.is_set():
            began = time.perf_counter()
            client = platform.client(1)
            first = next(client.stream("hello", **FORGETFUL))
            found.append((first.at - began) * 1000)
            client.close()

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
