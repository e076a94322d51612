from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where pid files and logs go."""
    run, logs = tmp_path / "run", tmp_path / "logs"
    run.mkdir()
    logs.mkdir()
    return run, logs


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """No process outlives the test."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    assert not left
