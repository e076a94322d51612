"""One log line per request: method, path, status and duration.

It never has what callers choose: queries, headers, bodies, and the parts of a path that are no ids.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from web.http.metrics import METHODS

log = logging.getLogger("web.access")

#: Routes that probes and scrapers request every few seconds: their lines are logged at DEBUG.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})

#: The path of a request that no route has: it can have any text, such as a key that was pasted into the wrong place.
UNMATCHED = "unmatched"

#: The status that is logged where the client disconnected before its response began, as nginx does.
CLIENT_CLOSED_REQUEST = 499

#: The ids of `models.platform.ids`. Other parameters of paths may be names that callers choose.
ID = re.compile(r"[a-z]+_[0-9a-f]{32}")

PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def log_request(scope: Scope, route: str, status: int, started: float) -> None:
    """Log a request at its end. `started` is its time by `time.perf_counter`."""
    level = logging.DEBUG if route in PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    duration = time.perf_counter() - started
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    path, status = loggable_path(route, scope.get("path_params") or {}), status or CLIENT_CLOSED_REQUEST
    fields = {
        "event.dataset": "sangha.access",
        "event.duration": int(duration * 1e9),
        "http.request.method": method,
        "http.response.status_code": status,
        "url.path": path,
        "labels.route": route,
    }
    log.log(level, "%s %s %d in %.1f ms", method, path, status, duration * 1000, extra={"ecs": fields})


def loggable_path(route: str, parameters: Mapping[str, Any]) -> str:
    """Return the path with its ids; for other parameters the placeholders of the route."""

    def value(match: "re.Match[str]") -> str:
        text = str(parameters.get(match[1], ""))
        return text if ID.fullmatch(text) else f"{{{match[1]}}}"

    return PARAMETER.sub(value, route)
