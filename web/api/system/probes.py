"""Liveness (`/healthz`), readiness (`/readyz`) and metrics (`/metrics`)."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired

import anyio
import anyio.to_thread
from starlette.responses import Response
from typing_extensions import TypedDict

from models.platform.errors import SanghaError
from web.api.request import Request
from web.api.system.sibling_metrics import InstallationMetrics
from web.http.responses import json_response

log = logging.getLogger(__name__)

#: Seconds after which a check that has not returned counts as failed.
TIMEOUT = 2.0

#: Threads for checks, separate from those for requests: checks that hang must not block requests.
THREADS = 16
_threads = anyio.CapacityLimiter(THREADS)


class Liveness(TypedDict):
    """The process is alive."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """Whether the process can serve: `ok` or the error of each check.

    The others do not affect readiness: `workers`; `unserved_models`, which no live worker serves; `open_breakers` of
    endpoints that are not asked; and `warnings`, such as that Redis may evict journals.
    """

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
    workers: NotRequired[Any]
    unserved_models: NotRequired[list[str]]
    open_breakers: NotRequired[list[str]]
    warnings: NotRequired[list[str]]


async def healthz(request: Request) -> Response:
    """`GET /healthz`: check that the process is alive.

    No other service is checked, so that a database outage does not restart web processes.
    """
    liveness: Liveness = {"status": "ok"}
    return json_response(liveness)


async def readyz(request: Request) -> Response:
    """`GET /readyz`: check that the process can serve requests.

    The status is 200 when every check succeeds, otherwise 503; the body has the result of each check.
    """
    checks, facts = await asyncio.gather(_run_all(request.platform.checks), _run_all(request.platform.facts))
    ready = all(succeeded for succeeded, _ in checks.values())
    readiness: Readiness = {
        "status": "ready" if ready else "not ready",
        "checks": {name: "ok" if succeeded else value for name, (succeeded, value) in checks.items()},
    }
    if "workers" in facts:
        readiness["workers"] = facts["workers"][1]
    succeeded, serving = facts.get("serving", (False, {}))
    if succeeded:
        readiness.update(serving)
    succeeded, warnings = facts.get("warnings", (False, []))
    if succeeded and warnings:
        readiness["warnings"] = warnings
    retry = {} if ready else {"retry-after": "1"}
    return json_response(readiness, 200 if ready else 503, {"cache-control": "no-store"} | retry)


def metrics(request: Request) -> Response:
    """`GET /metrics`: export metrics in Prometheus' text format.

    Also for requests from the machine itself, where no proxy is configured, or for requests with
    `SANGHA_METRICS_TOKEN`. `SANGHA_METRICS_ADDRESS` moves the metrics to an address of their own. Under `sangha up`
    they have those of all its processes, with a label `process`.
    """
    platform = request.platform
    installation = InstallationMetrics(platform.settings, platform.metrics)
    text, content_type = installation.render(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": content_type})


async def _run_all(checks: Mapping[str, Callable[[], Any]]) -> dict[str, tuple[bool, Any]]:
    results = await asyncio.gather(*(_run(name, check) for name, check in checks.items()))
    return dict(zip(checks, results, strict=True))


async def _run(name: str, check: Callable[[], Any]) -> tuple[bool, Any]:
    """Return whether a check succeeded in time, and its result or a short description of the error."""
    try:
        with anyio.fail_after(TIMEOUT):
            return True, await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=_threads)
    except TimeoutError:
        return False, f"no response within {TIMEOUT:g} s"
    except Exception as error:  # noqa: BLE001 - for whatever reason, the check has failed
        log.warning("Readiness check '%s' failed: %s", name, error)
        # The text of other errors may contain internal addresses.
        return False, str(error) if isinstance(error, SanghaError) else type(error).__name__
