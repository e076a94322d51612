"""Work that is left once a client has its answer: it is done whatever becomes of the request that began it."""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def afterwards(work: Callable[[], object]) -> None:
    """Do it in a thread, soon. A client that leaves with its last byte cancels the request, but not this."""
    asyncio.get_running_loop().run_in_executor(None, work).add_done_callback(_look)


def _look(done: "asyncio.Future[object]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("what was left to do failed: %r", error)
