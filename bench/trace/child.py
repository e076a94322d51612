"""`python -m bench.trace.child FILE …`: run `sangha …` with instruments, and write its spans to FILE when it ends."""

import atexit
import sys
from pathlib import Path

from bench.trace import instruments
from bench.trace.spans import Recorder


def main(file: Path, *arguments: str) -> None:
    """Run one of Sangha's processes."""
    recorder = Recorder()
    atexit.register(recorder.save, file)
    instruments.install(recorder)
    from ops.cli import main

    main(arguments, prog_name="sangha")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
