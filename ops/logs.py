"""Log to standard error, one line per record, tracebacks included."""

import logging
import re
import sys

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"

#: Log lines that `sangha up` shows on its console. Not warnings: while a server restarts, every process that uses it
#: warns. An e-mail that is written to a file is shown, because a user waits for its link.
CONSOLE_PATTERN = re.compile(r"^\S+ \S+ ((ERROR|CRITICAL) |INFO pipelines\.delivery\.mailers: e-mail)")

#: Libraries whose INFO records are left out.
VERBOSE_LIBRARIES = ("urllib3", "httpx2", "httpcore", "yoyo", "dramatiq")


class OneLine(logging.Formatter):
    """Formats a record as one line: line breaks become \\n."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return super().format(record).replace("\n", "\\n")


def configure_logging(*, verbose: bool = False, quiet: bool = False) -> None:
    """Log to standard error: INFO and above, with `verbose` everything, with `quiet` only errors.

    Quiet is for commands that print their own result.
    """
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
    # pika logs a lost connection as ten errors and three tracebacks; its callers log it as one line.
    logging.getLogger("pika").setLevel(logging.INFO if verbose else logging.CRITICAL)
    # The SDK of MCP logs each answer of a server that it cannot parse with a traceback; the call's result tells it.
    for name in ("mcp", "client"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)
