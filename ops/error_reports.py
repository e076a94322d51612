"""Report logged errors to Sentry, or to another server with its protocol, where SENTRY_DSN is set.

A report has the exception or message, its traceback without local variables, the release, the environment, and the ids
of the job or request. It has no request, no user, no breadcrumbs and no sessions (docs/decisions/0083).
"""

import logging
import sys
from typing import TYPE_CHECKING, Any

from models.platform.errors import ConfigurationError
from models.platform.log_context import current_context
from models.platform.redaction import redact
from models.platform.settings import Settings
from models.platform.tracing import current_span_id, current_trace_id
from ops.version import version

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

#: Commands that run for long. The others print their errors to the person who has run them.
PROCESSES = frozenset({"up", "web", "worker", "scheduler"})

#: Fields of an event that are sent as the SDK has built them.
KEPT_FIELDS = ("event_id", "timestamp", "level", "logger", "platform", "release", "environment", "server_name", "sdk")

#: Fields of a frame that are sent: where it is, and the lines of the source around it.
KEPT_FRAME_FIELDS = ("filename", "abs_path", "function", "module", "lineno", "pre_context", "context_line",
                     "post_context", "in_app")  # fmt: skip

#: Characters of the message of an exception that are sent.
MAX_VALUE = 1_000


def start_error_reports(settings: Settings, process: str) -> None:
    """Report errors that this process logs from now on. Raises ConfigurationError for a malformed SENTRY_DSN."""
    if settings.sentry_dsn is None or process not in PROCESSES:
        return
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.logging import EventHandler
    from sentry_sdk.utils import BadDsn

    try:
        sentry_sdk.init(
            settings.sentry_dsn,
            release=settings.sentry_release or f"sangha@{version()}",
            environment=settings.sentry_environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[AtexitIntegration(callback=lambda pending, timeout: None), DedupeIntegration()],
            before_send=lambda event, hint: scrub(event, hint, process),
            max_breadcrumbs=0,
            max_request_body_size="never",
            include_local_variables=False,
            auto_session_tracking=False,
            send_client_reports=False,
            enable_metrics=False,
            spotlight=False,
        )
    except BadDsn:
        raise ConfigurationError("SENTRY_DSN should be https://KEY@HOST/PROJECT") from None
    logging.getLogger().addHandler(EventHandler(logging.ERROR))


def report(message: str) -> None:
    """Report an error that is not logged: one that is shown on the console only."""
    if "sentry_sdk" in sys.modules:
        import sentry_sdk

        sentry_sdk.capture_message(message, level="error")


def scrub(event: "Event", hint: "Hint", process: str) -> "Event":
    """Return an event with what may be sent, and the ids of the present job, request and trace as tags."""
    fields: dict[str, Any] = dict(event)
    scrubbed = {name: fields[name] for name in KEPT_FIELDS if name in fields}
    scrubbed["tags"] = {"process": process} | current_context().labels()
    if (trace_id := current_trace_id()) is not None:
        scrubbed["tags"]["trace_id"] = trace_id
        scrubbed["contexts"] = {"trace": {"trace_id": trace_id, "span_id": current_span_id() or "0" * 16}}
    if fields.get("exception"):
        values = fields["exception"].get("values") or []
        scrubbed["exception"] = {"values": [_exception(value) for value in values]}
    return scrubbed | _message(fields, hint)  # type: ignore[return-value]


def _exception(value: dict[str, Any]) -> dict[str, Any]:
    """Return an exception without local variables and values that its message quotes."""
    frames = (value.get("stacktrace") or {}).get("frames") or []
    kept = {name: value[name] for name in ("type", "module", "mechanism") if value.get(name) is not None}
    kept["value"] = redact(str(value.get("value") or ""))[:MAX_VALUE]
    kept["stacktrace"] = {
        "frames": [{name: frame[name] for name in KEPT_FRAME_FIELDS if frame.get(name) is not None} for frame in frames]
    }
    return kept


def _message(fields: dict[str, Any], hint: "Hint") -> dict[str, Any]:
    """Return the message: its template, by which Sentry groups events, and its text."""
    record: logging.LogRecord | None = hint.get("log_record")
    if record is not None:
        return {"logentry": {"message": redact(str(record.msg)), "formatted": redact(record.getMessage())}}
    return {"message": redact(fields["message"])} if isinstance(fields.get("message"), str) else {}
