"""The scenario is skipped where its file does not fit."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.scenarios.llama import figures_of, lacking


def test_too_little_disk_or_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 << 30))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 30))
    assert lacking(tmp_path) == ""

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 << 30))
    assert lacking(tmp_path) == "it needs 8.8 GB of free memory"

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 << 30))
    assert lacking(tmp_path) == f"it needs 5.6 GB of disk in {tmp_path.parent}"


def test_the_figures_are_those_of_each_turn() -> None:
    new, again, following = (
        {"first": first, "speed": 5.0, "prompt": 100, "cached": cached}
        for first, cached in [(10.0, 0), (0.2, 99), (1.5, 90)]
    )

    figures = {
        figure.name: figure.value
        for figure in figures_of([{"load": 5.0, "memory": 600, "turns": [new, again, following]}], file_bytes=300)
    }

    assert figures["8B: first token, prompt cached"] == 0.2
    assert figures["8B: prompt tokens read"] == 10
    assert figures["8B: cached share of its prompt"] == 0.9
    assert figures["8B: memory beside the file ÷ file"] == 2
