"""Take the text out of a PDF, in a process that is killed if it takes too much."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.files import pdf_script
from pipelines.files.unreadable import UnreadableFile

#: Seconds for a PDF, however busy the machine is.
TIMEOUT = 60.0

#: PDFs that are read at once in this process. Others wait.
CONCURRENT = 2

#: Seconds between two looks at whether the attempt should stop.
POLL = 0.1

TOO_MUCH = f"it takes more than {pdf_script.CPU_SECONDS} seconds to read"

#: Why a PDF has no text, by the exit code of its process.
REASONS = {
    pdf_script.DAMAGED: "it is not a PDF, or is damaged",
    pdf_script.ENCRYPTED: "it is encrypted",
    pdf_script.WITHOUT_TEXT: "it contains no text; the images of scanned pages are not read",
    pdf_script.TOO_MANY_PAGES: f"it has more than {pdf_script.MAX_PAGES:,} pages",
    pdf_script.OUT_OF_MEMORY: "it takes too much memory to read",
    -signal.SIGXCPU: TOO_MUCH,
    -signal.SIGKILL: TOO_MUCH,
}

_places = threading.BoundedSemaphore(CONCURRENT)


def pdf_text(content: bytes, max_characters: int, check: Callable[[], None], timeout: float = TIMEOUT) -> str:
    """Return the text of a PDF. Raises UnreadableFile, and what `check` raises to stop."""
    while not _places.acquire(timeout=POLL):
        check()
    try:
        code, output = _run(content, max_characters, check, timeout)
    finally:
        _places.release()
    if code == pdf_script.TOO_LONG:
        raise UnreadableFile(f"it has more than {max_characters:,} characters")
    if code != 0:
        raise UnreadableFile(REASONS.get(code, REASONS[pdf_script.DAMAGED]))
    return output.decode()


def _run(content: bytes, max_characters: int, check: Callable[[], None], timeout: float) -> tuple[int, bytes]:
    """Run the program that reads PDFs. Returns its exit code and its output."""
    command = [sys.executable, "-I", str(Path(pdf_script.__file__)), str(max_characters)]
    with tempfile.TemporaryFile() as source:  # `communicate` does not send the rest of an input after a timeout
        source.write(content)
        source.seek(0)
        with subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}
        ) as process:
            try:
                return _wait(process, check, time.monotonic() + timeout)
            finally:
                process.kill()


def _wait(process: "subprocess.Popen[bytes]", check: Callable[[], None], until: float) -> tuple[int, bytes]:
    while True:
        try:
            output, _ = process.communicate(timeout=POLL)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            check()
            if time.monotonic() > until:
                raise UnreadableFile(TOO_MUCH) from None
