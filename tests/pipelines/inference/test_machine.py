"""A container's limits are the limits."""

from pathlib import Path

import pytest

from pipelines.inference.machine import usable_cores, usable_memory


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", 2), ("", 2)])
def test_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert usable_cores(2, file) == cores


def test_no_more_cores_than_it_may_run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3})
    assert usable_cores(8, tmp_path / "none") == 1


def test_memory(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1048576")
    assert usable_memory(limit) == 1 << 20
    limit.write_text("max")
    assert usable_memory(limit) == usable_memory(tmp_path / "none") > 1 << 20
