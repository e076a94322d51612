"""Install a peer: an environment of its own, created on first use and kept in `.bench`, which git ignores."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where environments are kept.
FOLDER = Path(__file__).parents[2] / ".bench"

#: Seconds that the installation may take; with a near index it takes half a minute.
PATIENCE = 600

PRINT_VERSION = "import sys; print(*sys.version_info[:2])"


class NotInstalled(Exception):
    """A peer cannot be installed here, for the reason given."""


@dataclass(frozen=True, slots=True)
class Package:
    """A peer's package.

    folder  of its environment, in `.bench`, and of its requirements, with exact versions, beside this module
    oldest  Python that it runs on
    """

    title: str
    folder: str
    oldest: tuple[int, int]

    @property
    def requirements(self) -> Path:
        """The packages, with their exact versions."""
        return Path(__file__).parent / self.folder / "requirements.txt"


AEGRA, LITELLM = Package("Aegra", "aegra", (3, 12)), Package("LiteLLM", "litellm", (3, 11))


def environment(report: Callable[[str], None], package: Package, folder: Path | None = None) -> Path:
    """Return the path of a peer's interpreter; creates its environment unless it exists. Raises NotInstalled."""
    folder = folder or FOLDER / package.folder
    python, stamp, listed = folder / "bin" / "python", folder / "made", package.requirements
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        report(f"installing {package.title} (once, about half a minute)")
        shutil.rmtree(folder, ignore_errors=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(listed)]
        for command in ([str(interpreter(package)), "-m", "venv", str(folder)], pip):
            run(command, package.title)
        stamp.write_text(digest)
    return python


def interpreter(package: Package) -> Path:
    """Return the path of a Python interpreter that is new enough. Raises NotInstalled."""
    python = next((path for path in candidates() if version(path) >= package.oldest), None)
    if python is None:
        wanted = ".".join(map(str, package.oldest))
        raise NotInstalled(f"{package.title} needs Python {wanted} or later, and there is none on this machine")
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


def run(command: list[str], title: str) -> None:
    """Run a step of the installation. Raises NotInstalled with the last line of its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{title} could not be installed within {PATIENCE} s") from None
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotInstalled(f"{title} can't be installed here: {output[-1]}")
