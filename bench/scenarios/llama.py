"""A model in the shape of Llama 3.1 8B, with random 4-bit weights: time to load, first token, memory.

The file is made for the run and deleted after it. Its speed is that of a real model: it does not depend on the weights.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import psutil  # type: ignore[import-untyped]

from bench.figures import Figure, at_most
from bench.harness.helper import helper
from bench.harness.processes import environment_of
from bench.harness.random_models.large import large_bytes, write_large
from bench.scenario import Bench

#: Bytes of memory beside the weights: contexts, buffers, and what keeps the machine usable.
MEMORY = 4 << 30

#: Bytes of disk that stay free.
FREE_DISK = 1 << 30

ROUNDS = 2


def llama(bench: Bench) -> Sequence[Figure]:
    """Measure the file in a new process each time; skipped with a line where it does not fit."""
    with tempfile.TemporaryDirectory(prefix="sangha-bench-") as folder:
        if missing := lacking(Path(folder)):
            click.echo(f"llama: skipped: {missing}", err=True)
            return ()
        bench.progress.report("writing a model of 8 billion weights")
        file = write_large(Path(folder) / "llama-3.1-8b-random.gguf")
        settings = bench.stack.settings.model_copy(
            update={"engine": "llamacpp", "model": str(file), "slots": 2, "context": 4096}
        )
        runs = []
        for number in range(ROUNDS):
            bench.progress.step(number, ROUNDS, "loads of 8 billion weights")
            with helper("bench.llama_engine", environment=environment_of(settings)) as process:
                runs.append(process.receive())
    return figures_of(runs, file_bytes=large_bytes())


def lacking(folder: Path) -> str:
    """Return what this machine has too little of; empty if nothing."""
    disk, memory = large_bytes() + FREE_DISK, large_bytes() + MEMORY
    if shutil.disk_usage(folder).free < disk:
        return f"it needs {disk / 1e9:.1f} GB of disk in {folder.parent}"
    if psutil.virtual_memory().available < memory:
        return f"it needs {memory / 1e9:.1f} GB of free memory"
    return ""


def figures_of(runs: Sequence[dict[str, object]], file_bytes: int) -> list[Figure]:
    """Return the figures of all runs."""
    turns = [[dict(turn) for turn in run["turns"]] for run in runs]  # type: ignore[attr-defined]
    new, again, following = ([run[number] for run in turns] for number in range(3))
    return [
        Figure("8B, 4 bits: load", "s", [float(str(run["load"])) for run in runs], at_most(30)),
        Figure("8B: first token, prompt cached", "s", [turn["first"] for turn in again], at_most(1)),
        Figure("8B: first token of the next turn", "s", [turn["first"] for turn in following]),
        Figure("8B: cached share of its prompt", "x", [turn["cached"] / turn["prompt"] for turn in following]),
        Figure("8B: prompt tokens read", "/s", [turn["prompt"] / turn["first"] for turn in new]),
        Figure("8B: tokens generated", "/s", [turn["speed"] for turn in again + following]),
        Figure("8B: memory beside the file ÷ file", "x", [float(str(run["memory"])) / file_bytes for run in runs]),
    ]
