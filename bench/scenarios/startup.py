"""Loading the model as a worker does, against what loading it takes at least, in fresh processes by turns."""

import time
from collections.abc import Sequence

from bench.bare import loading_seconds
from bench.bench import Bench
from bench.figures import Figure, at_most

ROUNDS = 6


def startup(bench: Bench) -> Sequence[Figure]:
    """Engine's start ÷ bare engine's load."""
    settings = bench.stack.settings
    bare, ours = [], []
    for number in range(ROUNDS + 1):
        bench.progress.step(number, ROUNDS, "loads with and without the platform")
        first = loading_seconds(settings, "bare")
        ours.append((loading_seconds(settings, "wrapped") + loading_seconds(settings, "wrapped")) / 2)
        bare.append((first + loading_seconds(settings, "bare")) / 2)
    ratios = [mine / its for mine, its in zip(ours[1:], bare[1:], strict=True)]  # the first one reads the disk
    began = time.perf_counter()
    with bench.stack.platform():
        ready = time.perf_counter() - began
    return [
        Figure("engine's start ÷ bare engine's load", "x", ratios, at_most(1.1)),
        Figure("the bare engine's load", "s", bare[1:]),
        Figure("web, worker with the model, scheduler → all ready", "s", [ready]),
    ]
