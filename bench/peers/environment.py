"""Where the peer is installed: an environment of its own, made on first use and kept in `.bench`, which git ignores."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

#: What is installed, to the version.
REQUIREMENTS = Path(__file__).parent / "aegra" / "requirements.txt"

FOLDER = Path(__file__).parents[2] / ".bench" / "aegra"

#: The oldest Python that the peer runs on.
OLDEST = (3, 12)

#: Seconds that installing may take; with a near index it takes half a minute.
PATIENCE = 600

SHOW_VERSION = "import sys; print(*sys.version_info[:2])"


class NotInstalled(Exception):
    """The peer can't be installed here; the text says why."""


def environment(say: Callable[[str], None], folder: Path = FOLDER) -> Path:
    """The Python of the peer's environment, which is made if it isn't there. Raises NotInstalled."""
    python, stamp = folder / "bin" / "python", folder / "made"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        say("installing the peer (once, about half a minute)")
        shutil.rmtree(folder, ignore_errors=True)
        run([str(interpreter()), "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)])
        stamp.write_text(wanted)
    return python


def interpreter() -> Path:
    """A Python that is new enough. Raises NotInstalled."""
    found = next((path for path in candidates() if version(path) >= OLDEST), None)
    if found is None:
        wanted = ".".join(map(str, OLDEST))
        raise NotInstalled(f"Aegra needs Python {wanted} or later, and there is none on this machine")
    return found


def candidates() -> Iterator[Path]:
    """The Pythons that may be here: our own, those on the path, and pyenv's. The pinned versions are known on 3.12."""
    names = ["python3.12", "python3.13", "python3.14"]
    yield from sorted((Path.home() / ".pyenv" / "versions").glob("3.1[2-9]*/bin/python"))
    yield from (Path(path) for name in names if (path := shutil.which(name)))
    yield Path(sys.executable)


def version(python: Path) -> tuple[int, ...]:
    """What a Python says of itself; nothing where it is none, such as pyenv's stand-ins."""
    try:
        said = subprocess.run([python, "-c", SHOW_VERSION], capture_output=True, text=True, timeout=10, check=False)
        return tuple(int(number) for number in said.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ()


def run(command: list[str]) -> None:
    """Run a step of installing. Raises NotInstalled with the last line that it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"Aegra could not be installed within {PATIENCE} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotInstalled(f"Aegra can't be installed here: {said[-1]}")
