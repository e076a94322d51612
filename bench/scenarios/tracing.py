"""CPU time of a turn whose spans are exported ÷ one without traces, in turns of processes of one run.

The collector takes all spans and drops them; its CPU is not counted.
"""

import http.server
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from bench.figures import Figure, at_most
from bench.harness.processes import tree_cpu_seconds
from bench.harness.sse import CheckFailed
from bench.harness.stack import WITHOUT_MEMORY
from bench.load import closed_loop
from bench.scenario import Bench
from models.platform.tracing import ENDPOINTS, current_traceparent, span, tracing_is_on

ROUNDS, TURNS, WARM_UP, TOKENS = 4, 400, 100, 20

SCRIPT = f"tokens={TOKENS},rate=0"

#: The CPU time of a traced turn ÷ that of one that is not; and the share of a turn that the calls without traces take.
GOAL, GOAL_OFF = at_most(1.10), at_most(0.005)

#: Calls of `tracing` in a turn without traces, at most: two for each job and span.
CALLS = 20

#: Seconds between two exports, and within which the last spans of a round arrive.
EXPORT_INTERVAL = 1.0


def tracing(bench: Bench) -> Sequence[Figure]:
    """Measure the CPU of a turn with traces and without. Raises CheckFailed if no span was exported."""
    off, on = [], []
    with collector() as (endpoint, received):
        for number in range(ROUNDS):
            bench.progress.step(number, ROUNDS, f"rounds of {TURNS} turns with traces and without")
            off.append(cost_of_turn(bench, {}))
            on.append(cost_of_turn(bench, {ENDPOINTS[1]: endpoint, "OTEL_BSP_SCHEDULE_DELAY": "1000"}))
    if not received:
        raise CheckFailed("the collector has received nothing")
    ratios = [traced / plain for traced, plain in zip(on, off, strict=True)]
    share = cost_of_calls() / min(off)
    return [
        Figure("CPU of all a turn, without traces", "ms", off),
        Figure("traced turn ÷ without traces", "x", ratios, GOAL),
        Figure("calls of tracing without traces ÷ a turn", "x", [share], GOAL_OFF),
    ]


def cost_of_turn(bench: Bench, variables: Mapping[str, str]) -> float:
    """Return the CPU milliseconds of a turn by processes with these variables."""
    with environment(variables), bench.stack.platform(engine="scripted", script=SCRIPT) as platform:
        pids = [child.pid for child in bench.stack.servers.children.values()]
        bodies = [{"input": f"Turn {index}", **WITHOUT_MEMORY} for index in range(TURNS)]
        closed_loop(platform.address, platform.tokens(1), bodies[:WARM_UP])
        before = sum(map(tree_cpu_seconds, pids))
        closed_loop(platform.address, platform.tokens(1), bodies)
        time.sleep(EXPORT_INTERVAL)  # for the export, which belongs to the turns; idle processes use nearly no CPU
        return 1000 * (sum(map(tree_cpu_seconds, pids)) - before) / TURNS


def cost_of_calls() -> float:
    """Return the CPU milliseconds that the calls of a turn take in a process without traces."""
    if tracing_is_on():
        raise CheckFailed("this process exports traces: unset the variables OTEL_*")
    began = time.process_time()
    for _ in range(1_000 * CALLS):
        with span("name", "internal"):
            current_traceparent()
    return (time.process_time() - began) * 1000 / 1_000


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started in the block, and no others of OpenTelemetry."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OTEL_")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


class Exports(http.server.BaseHTTPRequestHandler):
    """Accepts exports, and notes their sizes."""

    received: list[int]

    def do_POST(self) -> None:
        """Take an export."""
        self.received.append(len(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def collector() -> Iterator[tuple[str, list[int]]]:
    """Run a collector. Returns its address, and the list of the sizes that it receives."""
    received: list[int] = []
    handler = type("CountedExports", (Exports,), {"received": received})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
