"""Small parts for the supervisor to look after, and how to wait for what they do."""

import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil


class Script:
    """A Python program as a part; ready when it has written the file `ready`."""

    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL
    unprivileged_folder: Path | None = None
    console_pattern: re.Pattern[str] | None = None

    def __init__(self, name: str, folder: Path, program: str) -> None:
        self.name = name
        self.mark = folder / f"{name}.ready"
        self.program = program
        self.starts = 0

    def prepare(self) -> None:
        self.starts += 1
        self.mark.unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.mark)]

    def environment(self) -> Mapping[str, str]:
        return {}

    def ready(self, pid: int) -> bool:
        return self.mark.exists()

    def close(self) -> None:
        pass


LIVES = "import sys, time; open(sys.argv[1], 'w'); time.sleep(600)"
STUBBORN = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"
FAILS = "print('noise'); print('sangha: SANGHA_MODEL is wrong'); raise SystemExit(1)"
MISCONFIGURED = "print('sangha: SANGHA_MODEL is wrong'); raise SystemExit(2)"
HAS_A_CHILD = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "open(sys.argv[1], 'w'); time.sleep(600)"
)


def gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked for its exit code yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
