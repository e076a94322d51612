"""The result of a `tool.call`: what the model reads of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.agents.mcp.outcomes import CallOutcome, ServerFault
from pipelines.chat.mcp_items import execution_error


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call.

    error     in one of the forms of OpenAI's `mcp_call`; None if it succeeded
    in_doubt  whether the tool may have been called, and no answer came
    """

    output: str | None = None
    error: Mapping[str, Any] | None = None
    in_doubt: bool = False

    @property
    def as_json(self) -> dict[str, Any]:
        """The result of the job."""
        return asdict(self)


def result_of(outcome: CallOutcome, shorten: Callable[[str], str]) -> CallResult:
    """Return the result of a call that was answered. `shorten` cuts a text that is too long for the model."""
    text = shorten(outcome.text)
    if outcome.error is not None:
        return error_result(text or "The tool failed and did not say why.")
    return CallResult(output=text)


def error_result(message: str) -> CallResult:
    """Return the result of a tool that failed, or that was not called."""
    return CallResult(error=execution_error(message))


def fault_result(fault: ServerFault) -> CallResult:
    """Return the result of a call that its server did not answer, or not as it should."""
    return CallResult(error=fault.error)


def in_doubt(message: str) -> CallResult:
    """Return the result of a call that may have had its effect."""
    return CallResult(error=execution_error(message), in_doubt=True)
