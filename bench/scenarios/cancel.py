"""From a cancel to a free slot, as the next turn sees it: one slot, one turn in it, and one turn that waits for it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Figure, at_most
from bench.harness.client import BackgroundStream, event_type
from bench.harness.sse import CheckFailed, ReceivedEvent, is_delta
from bench.harness.stack import RunningPlatform
from bench.scenario import Bench

CANCELS = 20

#: Settings for an answer that runs until it is cancelled.
ENDLESS: Mapping[str, Mapping[str, Any]] = {
    "scripted engine": {"engine": "scripted", "script": "tokens=100000,rate=50"},
    "real model": {},
}


def cancel(bench: Bench) -> Sequence[Figure]:
    """Measure the time from POST cancel until the next turn runs, and until its first token."""
    figures = []
    for name, changes in ENDLESS.items():
        with bench.stack.platform(slots=1, **changes) as platform:
            cancels = []
            for number in range(CANCELS + 1):  # the first one warms up
                bench.progress.step(number, CANCELS, f"cancels, {name}")
                cancels.append(cancel_once(platform))
        started, first_token = zip(*cancels[1:], strict=True)
        figures.append(Figure(f"cancel → slot free, {name}", "ms", started, at_most(50)))
        figures.append(Figure(f"cancel → next turn's first token, {name}", "ms", first_token))
    return figures


def cancel_once(platform: RunningPlatform) -> tuple[float, float]:
    """Cancel a turn; returns the milliseconds until the next one runs, and until its first token."""
    running = BackgroundStream(platform.client().stream("Write a very long story.", temperature=0))
    running.wait_for(is_delta, 5)
    waiting = BackgroundStream(platform.client().stream("Write another very long story.", temperature=0))
    waiting.wait_for(event_type("response.queued"))
    time.sleep(0.05)  # until its message is in the queue, or its row in the table
    began = time.monotonic()
    post_cancel(platform, running)
    started = waiting.wait_for(event_type("response.in_progress"))
    first_token = waiting.wait_for(is_delta)
    post_cancel(platform, waiting)
    for turn in (running, waiting):
        expect_cancelled(turn)
    return (started.at - began) * 1000, (first_token.at - began) * 1000


def post_cancel(platform: RunningPlatform, turn: BackgroundStream[ReceivedEvent]) -> None:
    """Cancel a turn."""
    response = turn.events[0].json()["response"]
    platform.client().post(f"/v1/responses/{response['id']}/cancel", {})


def expect_cancelled(turn: BackgroundStream[ReceivedEvent]) -> None:
    """Raise CheckFailed unless the turn's stream ended with its cancellation."""
    if (last := turn.read_to_end()[-1]).type != "sangha:job.cancelled":
        raise CheckFailed(f"a cancelled turn ended with {last.type}")
