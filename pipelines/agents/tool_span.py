"""The span of a tool call, as the semantic conventions for generative AI have it."""

from models.jobs.attempt_context import Outcome
from models.jobs.attempts import Ending
from models.jobs.jobs import Job
from models.platform import span_names, tracing
from models.platform.tracing import Span, Value


def tool_span(job: Job) -> Span:
    """Return the span of a call."""
    if not tracing.tracing_is_on():
        return tracing.NO_SPAN
    name = str(job.arguments.get("name"))
    attributes: dict[str, Value] = {
        span_names.GEN_AI_OPERATION: "execute_tool",
        span_names.GEN_AI_TOOL_NAME: name,
        span_names.GEN_AI_TOOL_TYPE: "function",
        span_names.GEN_AI_TOOL_CALL_ID: job.id,
    }
    if tracing.captures_content():
        attributes[span_names.GEN_AI_TOOL_ARGUMENTS] = str(job.arguments.get("arguments"))
    return tracing.span(span_names.execute_tool(name), "internal", attributes)


def note_result(span: Span, outcome: Outcome) -> None:
    """Note the result of a call; an error of the tool makes the span an error."""
    if span is tracing.NO_SPAN or not isinstance(outcome, Ending):
        return
    result = outcome.result or {}
    if error := result.get("error"):
        span.fail(str(error.get("type") or "tool_error"))
    elif tracing.captures_content():
        span.set(span_names.GEN_AI_TOOL_RESULT, str(result.get("output") or ""))
