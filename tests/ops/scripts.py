"""Python programs as services for the supervisor."""

import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil


class Script:
    """A Python program as a service; ready when it has created the file NAME.ready."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, name: str, folder: Path, program: str) -> None:
        self.name = name
        self.ready_file = folder / f"{name}.ready"
        self.program = program
        self.starts = 0

    def prepare(self) -> None:
        self.starts += 1
        self.ready_file.unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.ready_file)]

    def environment(self) -> Mapping[str, str]:
        return {}

    def ready(self, pid: int) -> bool:
        return self.ready_file.exists()

    def close(self) -> None:
        pass


RUNS = "import sys, time; open(sys.argv[1], 'w'); time.sleep(600)"
IGNORES_TERM = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"
FAILS = "print('noise'); print('sangha: SANGHA_MODEL is wrong'); raise SystemExit(1)"
MISCONFIGURED = "print('sangha: SANGHA_MODEL is wrong'); raise SystemExit(2)"
HAS_A_CHILD = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "open(sys.argv[1], 'w'); time.sleep(600)"
)


def has_exited(pid: int) -> bool:
    """Return whether a process has exited, even if its parent has not waited for it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
