"""Log lines name the job or the request of their thread or task."""

import asyncio
import threading

from models.platform.log_context import NOTHING, LogContext, current_context, log_context, set_context
from web.http.threads import run_in_thread


def test_context_ends_with_its_block() -> None:
    with log_context(LogContext("job_1", "turn.run", 2)):
        assert current_context().labels() == {"job_id": "job_1", "job_kind": "turn.run", "attempt": "2"}
        assert current_context().subject() == "job job_1"
    assert current_context() is NOTHING
    assert NOTHING.subject() is None


def test_other_threads_have_their_own_context() -> None:
    seen = []
    with log_context(LogContext("job_1")):
        thread = threading.Thread(target=lambda: seen.append(current_context()))
        thread.start()
        thread.join()
    assert seen == [NOTHING]


def test_threads_of_a_request_have_its_context() -> None:
    async def request() -> LogContext:
        set_context(LogContext(request_id="req_1"))
        return await run_in_thread(current_context)

    assert asyncio.run(request()).subject() == "request req_1"
