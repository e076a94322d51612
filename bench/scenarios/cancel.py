"""From a cancel to a free slot, as the next turn sees it: one slot, one turn in it, one that waits for it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.bench import Bench
from bench.client import Broken, Listener, is_delta
from bench.figures import Figure, at_most
from bench.stack import Platform

CANCELS = 20

#: An answer that lasts until it is cancelled.
ENDLESS: Mapping[str, Mapping[str, Any]] = {
    "scripted engine": {"engine": "scripted", "script": "tokens=100000,rate=50"},
    "real model": {},
}


def cancel(bench: Bench) -> Sequence[Figure]:
    """POST cancel → the next turn runs, and says something."""
    figures = []
    for name, changes in ENDLESS.items():
        with bench.stack.platform(slots=1, **changes) as platform:
            cancels = []
            for number in range(CANCELS + 1):  # the first one warms up
                bench.progress.step(number, CANCELS, f"cancels, {name}")
                cancels.append(one_cancel(platform))
        running, speaking = zip(*cancels[1:], strict=True)
        figures.append(Figure(f"cancel → slot free, {name}", "ms", running, at_most(100)))
        figures.append(Figure(f"cancel → next turn's first token, {name}", "ms", speaking))
    return figures


def one_cancel(platform: Platform) -> tuple[float, float]:
    """Milliseconds from the cancel of one turn until the other runs, and until it says something."""
    running = Listener(platform.client(), "Write a very long story.", temperature=0)
    running.wait(is_delta, 5)
    waiting = Listener(platform.client(), "Write another very long story.", temperature=0)
    waiting.wait(lambda event: event.type == "response.queued")
    time.sleep(0.05)  # its message lies in the queue, or its row in the table
    began = time.perf_counter()
    stop(platform, running)
    free = waiting.wait(lambda event: event.type == "response.in_progress")
    speaks = waiting.wait(is_delta)
    stop(platform, waiting)
    for turn in (running, waiting):
        expect_cancelled(turn)
    return (free.at - began) * 1000, (speaks.at - began) * 1000


def stop(platform: Platform, turn: Listener) -> None:
    """Cancel a turn."""
    response = turn.events[0].json()["response"]
    platform.client().post(f"/v1/responses/{response['id']}/cancel", {})


def expect_cancelled(turn: Listener) -> None:
    """Raises Broken unless the turn's stream ended with its cancel."""
    if (last := turn.to_end()[-1]).type != "sangha.job.cancelled":
        raise Broken(f"a cancelled turn ended with {last.type}")
