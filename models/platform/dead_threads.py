"""Find threads that a process needs and that have ended."""

import threading
from collections.abc import Iterable


def dead_threads(threads: Iterable[threading.Thread]) -> list[str]:
    """Return a problem for each started thread that has ended."""
    return [
        f"the thread {thread.name} has ended"
        for thread in threads
        if thread.ident is not None and not thread.is_alive()
    ]
