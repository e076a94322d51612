"""Install the clients: environments of their own, created on first use and kept in `.clients`, which git ignores.

Their versions are pinned with hashes: those of Python by `python/NAME.txt`, those of JavaScript by
`javascript/package-lock.json`. Node.js is a wheel, because Debian 12's version 18 is too old for these clients.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PYTHON, JAVASCRIPT = HERE / "python", HERE / "javascript"
FOLDER = HERE.parents[2] / ".clients"

#: Seconds that an installation may take; with a near index it takes half a minute.
PATIENCE = 600


def python_environment(name: str) -> Path:
    """Return the interpreter of an environment with the packages of `python/NAME.txt`."""
    lock = PYTHON / f"{name}.txt"
    with _installing(FOLDER / name, lock) as folder:
        if folder is not None:
            uv = str(Path(sys.executable).parent / "uv")
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
            python = ["--python", str(folder / "bin" / "python")]
            _run([uv, "pip", "install", "--quiet", "--require-hashes", *python, "--requirement", str(lock)])
    return FOLDER / name / "bin" / "python"


def javascript_folder() -> Path:
    """Return a folder with the packages of `javascript/package-lock.json` and the current scripts."""
    folder = javascript_packages(JAVASCRIPT)
    for script in JAVASCRIPT.glob("*.mjs"):  # they find the packages in their own folder only
        shutil.copy(script, folder)
    return folder


def javascript_packages(locked: Path) -> Path:
    """Return a folder with the packages of the `package-lock.json` in the folder `locked`."""
    node()  # which npm needs
    with _installing(FOLDER / locked.name, locked / "package-lock.json") as folder:
        if folder is not None:
            folder.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(locked / name, folder)
            _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], folder)
    return FOLDER / locked.name


def node() -> Path:
    """Return the path of Node.js."""
    return python_environment("node").parent / "node"


@contextmanager
def _installing(folder: Path, lock: Path) -> Iterator[Path | None]:
    """Yield the folder, empty, if it has to be installed: it is new, or its lock file has changed."""
    digest, stamp = hashlib.sha256(lock.read_bytes()).hexdigest(), folder / "installed"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests run in several processes
        if stamp.exists() and stamp.read_text() == digest:
            yield None
            return
        shutil.rmtree(folder, ignore_errors=True)
        yield folder
        stamp.write_text(digest)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a step of an installation. Raises AssertionError with its output."""
    environment = {**os.environ, "PATH": f"{FOLDER / 'node' / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
