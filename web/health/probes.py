"""Is the process alive (`/healthz`), can it serve (`/readyz`), and how is it doing (`/metrics`)."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
from starlette.responses import Response

from models.platform.errors import SanghaError
from web.http.answers import json_answer
from web.routing import Call

log = logging.getLogger(__name__)

#: Seconds after which a part that has not answered counts as down.
PATIENCE = 2.0

#: Threads for checks, apart from those for requests: checks that hang must not take the door with them.
_threads = anyio.CapacityLimiter(16)


async def healthz(call: Call) -> Response:
    """`GET /healthz`: the process lives. It asks nobody else, so that a broken database restarts no web process."""
    return json_answer({"status": "ok"})


async def readyz(call: Call) -> Response:
    """`GET /readyz`: 200 when every part works, 503 otherwise, with the state of each."""
    checks, facts = await asyncio.gather(_ask_all(call.platform.checks), _ask_all(call.platform.facts))
    ready = all(working for working, _ in checks.values())
    answer = {
        "status": "ready" if ready else "not ready",
        "checks": {name: "ok" if working else value for name, (working, value) in checks.items()},
        **{name: value for name, (_, value) in facts.items()},
    }
    return json_answer(answer, 200 if ready else 503, {"cache-control": "no-store"} | _hint(ready))


def metrics(call: Call) -> Response:
    """`GET /metrics`: Prometheus' text format."""
    text, content_type = call.platform.metrics.exposition()
    return Response(text, headers={"content-type": content_type})


def _hint(ready: bool) -> dict[str, str]:
    return {} if ready else {"retry-after": "1"}


async def _ask_all(questions: Mapping[str, Callable[[], Any]]) -> dict[str, tuple[bool, Any]]:
    answers = await asyncio.gather(*(_ask(name, question) for name, question in questions.items()))
    return dict(zip(questions, answers, strict=True))


async def _ask(name: str, question: Callable[[], Any]) -> tuple[bool, Any]:
    """Whether the question was answered in time, and the answer or, in a few words, what went wrong."""
    try:
        with anyio.fail_after(PATIENCE):
            return True, await anyio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=_threads)
    except TimeoutError:
        return False, f"no answer within {PATIENCE:g} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, the part is not ready
        log.warning("%s is not ready: %s", name, error)
        # Our own errors are written for readers; others may tell of addresses that are nobody's business.
        return False, str(error) if isinstance(error, SanghaError) else type(error).__name__
