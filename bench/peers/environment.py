"""Install the peer: an environment of its own, created on first use and kept in `.bench`, which git ignores."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

#: The packages, with their exact versions.
REQUIREMENTS = Path(__file__).parent / "aegra" / "requirements.txt"

FOLDER = Path(__file__).parents[2] / ".bench" / "aegra"

#: The oldest Python that the peer runs on.
OLDEST = (3, 12)

#: Seconds that the installation may take; with a near index it takes half a minute.
PATIENCE = 600

PRINT_VERSION = "import sys; print(*sys.version_info[:2])"


class NotInstalled(Exception):
    """The peer cannot be installed here, for the reason given."""


def environment(report: Callable[[str], None], folder: Path = FOLDER) -> Path:
    """Return the path of the peer's interpreter; creates its environment unless it exists. Raises NotInstalled."""
    python, stamp = folder / "bin" / "python", folder / "made"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        report("installing the peer (once, about half a minute)")
        shutil.rmtree(folder, ignore_errors=True)
        run([str(interpreter()), "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)])
        stamp.write_text(digest)
    return python


def interpreter() -> Path:
    """Return the path of a Python interpreter that is new enough. Raises NotInstalled."""
    python = next((path for path in candidates() if version(path) >= OLDEST), None)
    if python is None:
        wanted = ".".join(map(str, OLDEST))
        raise NotInstalled(f"Aegra needs Python {wanted} or later, and there is none on this machine")
    return python


def candidates() -> Iterator[Path]:
    """Yield the interpreters to try: pyenv's, those on the path, and ours. The pinned versions are tested on 3.12."""
    names = ["python3.12", "python3.13", "python3.14"]
    yield from sorted((Path.home() / ".pyenv" / "versions").glob("3.1[2-9]*/bin/python"))
    yield from (Path(path) for name in names if (path := shutil.which(name)))
    yield Path(sys.executable)


def version(python: Path) -> tuple[int, ...]:
    """Return an interpreter's version; empty if the program is no Python, such as one of pyenv's shims."""
    try:
        done = subprocess.run([python, "-c", PRINT_VERSION], capture_output=True, text=True, timeout=10, check=False)
        return tuple(int(number) for number in done.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ()


def run(command: list[str]) -> None:
    """Run a step of the installation. Raises NotInstalled with the last line of its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"Aegra could not be installed within {PATIENCE} s") from None
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotInstalled(f"Aegra can't be installed here: {output[-1]}")
