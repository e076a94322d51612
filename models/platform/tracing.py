"""The present trace, as logs, error reports and exemplars of metrics name it."""


def current_trace_id() -> str | None:
    """Return the trace id of the present span: 32 hexadecimal digits; None: nothing is traced."""
    return None


def current_span_id() -> str | None:
    """Return the id of the present span: 16 hexadecimal digits; None: nothing is traced."""
    return None
