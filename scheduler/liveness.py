"""Show that the scheduler works, by a file whose time changes with each pass of the sweeper."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from models.platform.settings import Settings


def liveness_file(settings: Settings) -> Path:
    """Return the file, beside the pid files of `sangha up`."""
    return settings.home / "run" / "scheduler.alive"


def noting_life(settings: Settings, function: Callable[[], object]) -> Callable[[], object]:
    """Return a function that touches the file after each call, also one that raised.

    Without `sangha up` there is no folder, and nothing is written.
    """
    file = liveness_file(settings)

    def call() -> None:
        try:
            function()
        finally:
            with suppress(OSError):
                file.touch()

    return call
