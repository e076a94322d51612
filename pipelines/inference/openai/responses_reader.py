"""Read the streamed answers of OpenAI's responses API.

Each event has a `type`. The last one, `response.completed` or `response.incomplete`, has the whole response with its
usage; an endpoint that does not stream sends only that response.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.inference.engine import AnswerEnd, OutputFormat
from pipelines.inference.openai.completion_reader import AnswerReader, logprob
from pipelines.inference.openai.endpoint_errors import error_in_stream

#: The events with a piece of text.
TEXT_EVENTS = frozenset({"response.output_text.delta", "response.refusal.delta"})

#: The events with a piece of reasoning.
REASONING_EVENTS = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta"})

#: The events with the whole response at its end.
END_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})

#: The ends of answers by `incomplete_details.reason`.
INCOMPLETE_ENDS: Mapping[str, AnswerEnd] = {"max_output_tokens": "length", "content_filter": "content_filter"}


class ResponsesReader(AnswerReader):
    """Reads the events of a response."""

    def __init__(self, output_format: OutputFormat) -> None:
        super().__init__(output_format)
        self._items: dict[str, tuple[str, str]] = {}
        self._has_text = False

    def _add(self, chunk: Mapping[str, Any]) -> tuple[str, str]:
        type_ = str(chunk.get("type") or "")
        if type_ == "error" or (chunk.get("error") and not type_):
            raise error_in_stream(chunk.get("error") or chunk)
        reasoning = text = ""
        if type_ in TEXT_EVENTS:
            text, self._has_text = chunk["delta"], True
            self._logprobs += map(logprob, chunk.get("logprobs") or ())
        elif type_ in REASONING_EVENTS:
            reasoning = chunk["delta"]
        elif type_ == "response.output_item.done":
            self._add_item(chunk["item"])
        elif type_ in END_EVENTS:
            text = self._end_with(chunk["response"])
        elif chunk.get("object") == "response":  # the endpoint does not stream
            text = self._end_with(chunk)
        return self._reasoning_halves.add(reasoning), self._halves.add(text)

    def _end_with(self, response: Mapping[str, Any]) -> str:
        """Read the whole response. Returns its text, if no event had any."""
        if response.get("status") == "failed":
            raise error_in_stream(response.get("error") or "the response failed")
        for item in response.get("output") or ():
            self._add_item(item)
        self._usage = _usage(response.get("usage") or {})
        incomplete = (response.get("incomplete_details") or {}).get("reason")
        self._reason = INCOMPLETE_ENDS.get(incomplete or "", "stop")
        self.done = True
        return "" if self._has_text else _text(response.get("output") or ())

    def _add_item(self, item: Mapping[str, Any]) -> None:
        if item.get("type") == "function_call":
            self._items[str(item.get("call_id") or item.get("id"))] = (item["name"], item.get("arguments") or "{}")

    def _calls(self) -> list[tuple[str, str]]:
        return list(self._items.values())


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage under the names of Chat Completions."""
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }


def _text(output: Any) -> str:
    """Return the text of a whole response."""
    parts = [part for item in output if item.get("type") == "message" for part in item.get("content") or ()]
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)
