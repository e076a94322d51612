"""The log level of a process, which an operator can change while it runs.

`sangha log-level` stores a level in Redis, which forgets it at its time. Every process looks for it, also one that
starts later.
"""

import logging
import threading
from typing import Literal, get_args

import redis

from models.platform.redis_client import connect
from models.platform.settings import Settings

log = logging.getLogger(__name__)

LevelName = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

#: The key of the level that holds for all processes for a while.
KEY = "sangha:log_level"

#: Seconds between two looks: the longest delay until a process follows a change.
INTERVAL = 2.0

#: The loggers of this program. Only these log below INFO: libraries log headers and bodies there.
OWN_LOGGERS = ("models", "pipelines", "tasks", "web", "scheduler", "ops")

#: Libraries whose INFO records are left out: some have the whole URL of each request.
VERBOSE_LIBRARIES = ("urllib3", "httpx", "httpx2", "httpcore", "yoyo", "dramatiq", "stripe")

#: Libraries that log nothing: pika logs a lost connection as ten errors and three tracebacks; the SDK of MCP logs each
#: answer of a server that it cannot parse. Their callers log one line, or store the error with the call.
SILENT_LIBRARIES = ("pika", "mcp", "client")


def set_level(level: LevelName) -> None:
    """Log records of this level and above; those of libraries from INFO, or from WARNING where INFO is verbose."""
    number = logging.getLevelNamesMapping()[level]
    logging.getLogger().setLevel(max(number, logging.INFO))
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(number)
    for name in VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in SILENT_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def current_level() -> LevelName:
    """Return the level of this program's records."""
    name = logging.getLevelName(logging.getLogger(OWN_LOGGERS[0]).getEffectiveLevel())
    return next((level for level in get_args(LevelName) if level == name), "INFO")


def store_level(client: redis.Redis, level: LevelName | None, *, minutes: int) -> None:
    """Store the level of all processes for some minutes; None: each returns to its own now."""
    if level is None:
        client.delete(KEY)
    else:
        client.set(KEY, level, ex=60 * minutes)


def stored_level(client: redis.Redis) -> tuple[LevelName, float] | None:
    """Return the level that holds for all processes and the seconds for which it does; None: there is none."""
    stored, seconds = client.get(KEY), client.pttl(KEY)
    assert stored is None or isinstance(stored, bytes)
    assert isinstance(seconds, int)
    level = next((name for name in get_args(LevelName) if stored == name.encode()), None)
    return (level, max(0.0, seconds / 1000)) if level else None


class LogLevelWatch:
    """A thread that applies the stored level to this process, and its own level again when that has expired."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = self._applied = current_level()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-level", daemon=True)

    def start(self) -> "LogLevelWatch":
        """Start the thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the thread, without waiting for it: it may wait for Redis."""
        self._stopped.set()

    def look(self, client: redis.Redis) -> None:
        """Apply the stored level. While Redis is unavailable, the present one stays."""
        try:
            stored = stored_level(client)
        except (redis.RedisError, OSError):
            return
        level = stored[0] if stored else self._own
        if level != self._applied:
            self._apply(level, f"for {stored[1] / 60:.0f} minutes" if stored else "as configured")

    def _apply(self, level: LevelName, duration: str) -> None:
        set_level(level)
        self._applied = level
        log.log(logging.getLevelNamesMapping()[level], "Logging from level %s on, %s", level, duration)

    def _run(self) -> None:
        with connect(self._settings.redis_address) as client:
            while not self._stopped.is_set():
                try:
                    self.look(client)
                except Exception:  # the next look may succeed
                    log.exception("Cannot look for the log level of all processes")
                self._stopped.wait(INTERVAL)
