"""Loading the model as a worker does, compared with the least that loading takes, in alternating new processes.

And `sangha up` with everything embedded, in an empty folder and again in the same one.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.bare_engine import loading_seconds
from bench.figures import Figure, at_most
from bench.harness.processes import environment_of
from bench.harness.sse import CheckFailed
from bench.scenario import Bench
from models.platform.settings import Settings
from ops.child_process import launcher_command
from ops.rabbitmq import free_ports

ROUNDS, STARTS = 6, 4


def startup(bench: Bench) -> Sequence[Figure]:
    """Measure the engine's start ÷ the bare engine's load, and the start of `sangha up`."""
    settings = bench.stack.settings
    bare, ours = [], []
    for number in range(ROUNDS + 1):
        bench.progress.step(number, ROUNDS, "loads with and without the platform")
        first = loading_seconds(settings, "bare")
        ours.append((loading_seconds(settings, "wrapped") + loading_seconds(settings, "wrapped")) / 2)
        bare.append((first + loading_seconds(settings, "bare")) / 2)
    ratios = [mine / other for mine, other in zip(ours[1:], bare[1:], strict=True)]  # the first one reads the disk
    first, *later = start_times(bench)
    return [
        Figure("engine's start ÷ bare engine's load", "x", ratios, at_most(1.1)),
        Figure("the bare engine's load", "s", bare[1:]),
        Figure("first `sangha up` in an empty folder → ready", "s", [first]),
        Figure("second `sangha up` → ready", "s", later, at_most(3)),
    ]


def start_times(bench: Bench) -> list[float]:
    """Start `sangha up` several times in one folder; returns the seconds until it was ready."""
    with tempfile.TemporaryDirectory(prefix="sangha-bench-") as folder:
        settings = Settings.model_validate({"data_dir": Path(folder), "port": free_ports(1)[0]})
        times = []
        for number in range(STARTS):
            bench.progress.step(number, STARTS, "starts of everything")
            times.append(seconds_to_ready(settings))
        return times


def seconds_to_ready(settings: Settings) -> float:
    """Start, wait for the line that reports readiness, and stop. Raises CheckFailed when the process ends before."""
    began = time.monotonic()
    with subprocess.Popen(
        launcher_command([sys.executable, "-m", "ops", "up"], signal.SIGTERM),
        stdout=subprocess.PIPE,
        env=environment_of(settings),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        ready = any(line.startswith(b"Ready after") for line in process.stdout)
        seconds = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    if not ready:
        raise CheckFailed("`sangha up` ended before it was ready")
    return seconds
