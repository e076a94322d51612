"""Describe what figures depend on beside the code: the machine, and the commit."""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the commit that were measured. `load` is the load average of the minute before the run."""

    processor: str
    cores: int
    memory: int
    system: str
    python: str
    commit: str
    load: float

    def line(self) -> str:
        """Return the line for the top of the table."""
        gigabytes = f"{self.memory / 1e9:.0f} GB"
        return (
            f"{self.processor}, {self.cores} cores, {gigabytes}, {self.system}, Python {self.python}, "
            f"commit {self.commit}, load {self.load:.1f} before"
        )


def describe() -> Machine:
    """Describe this machine, and the commit of this checkout."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        commit=_commit(),
        load=os.getloadavg()[0],
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """Return the short hash, with `+` where tracked files were changed; `unknown` outside a checkout."""
    commit = _git("rev-parse", "--short", "HEAD")
    changed = "+" if commit and _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{commit}{changed}" or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
