"""The result of a `tool.call`: what the model reads of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.agents.mcp.outcomes import CallOutcome
from pipelines.agents.mcp.values import cut_bytes


@dataclass(frozen=True, slots=True)
class CallResult:
    """What became of a call.

    error     `{"type", "message"}`, with the `code` of a protocol's error or an HTTP status; None if it succeeded
    in_doubt  whether the tool may have been called, and no answer came
    """

    output: str | None = None
    error: Mapping[str, Any] | None = None
    in_doubt: bool = False

    @property
    def as_json(self) -> dict[str, Any]:
        """The result of the job."""
        return asdict(self)


def result_of(outcome: CallOutcome, limit: int) -> CallResult:
    """Return the result of a call that was answered, with at most about `limit` bytes of text."""
    text = cut_bytes(outcome.text, limit)
    if outcome.error is not None:
        return error_result({"type": outcome.error, "message": text or "The tool failed and did not say why."})
    return CallResult(output=text)


def error_result(error: Mapping[str, Any]) -> CallResult:
    """Return the result of a call that has failed."""
    return CallResult(error=error)


def in_doubt(message: str) -> CallResult:
    """Return the result of a call that may have had its effect."""
    return CallResult(error={"type": "in_doubt", "message": message}, in_doubt=True)
