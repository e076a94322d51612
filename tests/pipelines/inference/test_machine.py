"""CPU and memory are limited by the container."""

from pathlib import Path

import pytest

from pipelines.inference import machine
from pipelines.inference.machine import CompetingLoad, usable_cores, usable_memory


@pytest.fixture(autouse=True)
def four_cores_of_two_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("300000 100000", 3), ("max 100000", 4), ("", 4)])
def test_cores_are_limited_by_the_cgroup_quota(tmp_path: Path, quota: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == cores


def test_cores_are_limited_by_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1, 2, 6})
    assert usable_cores(tmp_path / "none") == 2


def test_each_cpu_is_a_core_where_the_topology_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TOPOLOGY", tmp_path / "none")
    assert usable_cores(tmp_path / "none") == 8


def test_memory_is_limited_by_the_cgroup(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1048576")
    assert usable_memory(limit) == 1 << 20
    limit.write_text("max")
    assert usable_memory(limit) == usable_memory(tmp_path / "none") > 1 << 20


def test_competing_load_is_the_share_of_busy_time(tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("cpu 100 0 0 1000 0 0 0 0 0 0\ncpu0 …\n")
    competing = CompetingLoad(file)
    file.write_text("cpu 103 0 2 1005 0 0 0 0 0 0\n")
    assert competing.share(0) == 0  # less than MIN_INTERVAL
    file.write_text("cpu 140 10 20 1020 10 0 0 0 0 0\n")
    assert competing.share(0) == pytest.approx(0.7)
    assert competing.share(0) == pytest.approx(0.7)
    file.write_text("cpu 140 10 20 1120 10 0 0 0 0 0\n")
    assert competing.share(0) == 0


def test_competing_load_is_0_without_proc_stat(tmp_path: Path) -> None:
    competing = CompetingLoad(tmp_path / "none")
    assert competing.share(1.0) == 0
