"""Logging of a process: one line a record on standard error, a traceback included."""

import logging
import re
import sys

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"

#: What a person in front of `sangha up` should see of a process's log. Not its warnings: while a server restarts, every
#: part that needs it warns. A letter that nobody sends is worth a look: its link is what somebody waits for.
CONSOLE_PATTERN = re.compile(r"^\S+ \S+ ((ERROR|CRITICAL) |INFO pipelines\.delivery\.mailers: a letter)")

#: Libraries that tell more than anybody wants to know.
VERBOSE_LIBRARIES = ("urllib3", "httpx", "httpcore", "apscheduler", "yoyo", "dramatiq")


class OneLine(logging.Formatter):
    """A record as one line: line ends within it are written as \\n."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return super().format(record).replace("\n", "\\n")


def configure_logging(*, verbose: bool = False, quiet: bool = False) -> None:
    """Log to standard error: INFO and above, with `verbose` everything, with `quiet` only errors.

    Quiet is for commands that answer the person in front of them in their own words.
    """
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
    # A lost connection is ten errors and three tracebacks to pika; who uses it tells it in one line.
    logging.getLogger("pika").setLevel(logging.INFO if verbose else logging.CRITICAL)
