"""Write the text of the PDF on the standard input to the standard output, as a program of its own with little power.

A PDF may be made to take hours or all memory, so the limits below end the process. It imports nothing of this project,
and gets no environment.
"""

import io
import logging
import os
import resource
import sys

#: Seconds on the processor, and bytes of memory.
CPU_SECONDS, MEMORY = 20, 1 << 30

MAX_PAGES = 2_000

#: Exit codes, of which `pipelines.files.pdf_text` has the messages.
DAMAGED, ENCRYPTED, WITHOUT_TEXT, TOO_MANY_PAGES, TOO_LONG, OUT_OF_MEMORY = 10, 11, 12, 13, 14, 15


def main(max_characters: int) -> int:
    """Write the text of all pages, a blank line between two of them. Returns the exit code."""
    _limit()
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(sys.stdin.buffer.read()))
    if reader.is_encrypted and not reader.decrypt(""):
        return ENCRYPTED
    if len(reader.pages) > MAX_PAGES:
        return TOO_MANY_PAGES
    pages, length = list[str](), 0
    for page in reader.pages:
        text = page.extract_text().strip()
        length += len(text) + 2
        if length > max_characters:
            return TOO_LONG
        pages.append(text)
    text = "\n\n".join(filter(None, pages))
    if not text:
        return WITHOUT_TEXT
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()
    return 0


def _limit() -> None:
    """Limit time, memory and files, and let other processes go first."""
    logging.disable()
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    try:
        code = main(int(sys.argv[1]))
    except MemoryError:
        code = OUT_OF_MEMORY
    except Exception:  # noqa: BLE001 - whatever pypdf raises: the file is not as it should be
        code = DAMAGED
    os._exit(code)  # nothing is left to do, and much memory to return
