"""Read the streamed answers of OpenAI's chat completions API, also of endpoints that differ from it.

An endpoint streams chunks of JSON, each with a piece of text, and reports the number of generated tokens only at the
end. Until then each chunk counts as one token, which is what endpoints send; tokens beyond the text, such as hidden
reasoning, are added at the end. So the journal contains what the endpoint bills.

An attempt that fails is repeated, and the endpoint bills it again. So only what another attempt may mend is an error
that is retried.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from models.platform.errors import PermanentFailure
from pipelines.inference.engine import (
    AnswerEnd,
    EngineOutput,
    Finish,
    GeneratedCall,
    GenerationEnd,
    OutputFormat,
    ReasoningToken,
    Token,
    TokenLogprob,
)
from pipelines.inference.openai.call_reader import CallReader
from pipelines.inference.openai.chunk_json import HalfCharacterJoiner, join_halves, parse_json
from pipelines.inference.openai.endpoint_errors import EndpointError, error_in_stream

#: The ends of answers by `finish_reason`; all others mean that the model has stopped by itself.
ANSWER_ENDS: Mapping[str, AnswerEnd] = {"length": "length", "content_filter": "content_filter"}

#: The code of an answer that is not in the required format.
VIOLATION = "invalid_model_output"


class AnswerReader(ABC):
    """Reads the events of one answer, through either API.

    done  the endpoint has sent its end marker
    """

    def __init__(self, output_format: OutputFormat) -> None:
        self.done = False
        self._output_format = output_format
        self._reason: AnswerEnd | None = None
        self._text: list[str] = []
        self._halves, self._reasoning_halves = HalfCharacterJoiner(), HalfCharacterJoiner()
        self._logprobs: list[TokenLogprob] = []
        self._usage: Mapping[str, Any] = {}
        self._yielded_tokens = self._yielded_reasoning = 0

    def add(self, data: bytes) -> list[ReasoningToken | Token]:
        """Read a chunk and return its reasoning and its text, if any.

        Raises EndpointError for anything else than a chunk, and what an error in the stream means.
        """
        if data == b"[DONE]":
            self.done = True
            return []
        try:
            reasoning, text = self._add(parse_json(data))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise EndpointError(f"The endpoint sent an invalid chunk: {data[:200]!r}", "invalid_response") from error
        tokens: list[ReasoningToken | Token] = []
        if reasoning:
            tokens.append(ReasoningToken(reasoning, 1))
            self._yielded_reasoning += 1
        if text:
            tokens.append(Token(text, 1, tuple(self._logprobs)))
            self._text.append(text)
            self._logprobs.clear()
        self._yielded_tokens += len(tokens)
        return tokens

    def finish(self, prompt_tokens: int) -> Iterator[EngineOutput]:
        """Yield the calls, the tokens beyond the text, and the end.

        `prompt_tokens` is the count where the endpoint reports no usage. Raises EndpointError and PermanentFailure.
        """
        reason = self._reason or ("stop" if self.done else None)  # some endpoints send only the end marker
        if reason is None:
            raise EndpointError("The endpoint's answer ended without a finish reason", "dropped")
        calls = self._complete_calls(reason)
        if reason == "stop":
            self._check(calls)
        rest = self._halves.flush()
        extra_tokens = max(int(self._usage.get("completion_tokens") or 0) - self._yielded_tokens, len(calls))
        for position, (name, arguments) in enumerate(calls):
            yield GeneratedCall(name, arguments, extra_tokens - len(calls) + 1 if position == 0 else 1)
        if (rest or extra_tokens) and not calls:
            yield Token(rest, extra_tokens, tuple(self._logprobs))
        self._yielded_tokens += extra_tokens
        yield replace(self._end(reason, prompt_tokens), hidden_reasoning=self._hidden_reasoning(extra_tokens))

    def stopped_finish(self, prompt_tokens: int) -> Finish:
        """Return the end of an answer at a stop text, which the caller has found."""
        return self._end("stop", prompt_tokens)

    def cancelled_finish(self, prompt_tokens: int) -> Finish:
        """Return the end of a cancelled generation."""
        return self._end("cancelled", prompt_tokens if self._yielded_tokens else 0)

    def _end(self, reason: GenerationEnd, prompt_tokens: int) -> Finish:
        prompt_tokens_read = int(self._usage.get("prompt_tokens") or prompt_tokens)
        details = self._usage.get("prompt_tokens_details") or {}
        return Finish(
            reason,
            prompt_tokens_read,
            min(int(details.get("cached_tokens") or 0), prompt_tokens_read),
            self._yielded_tokens,
        )

    def _hidden_reasoning(self, extra_tokens: int) -> int:
        """Return how many of the `extra_tokens`, which no chunk contained, are reasoning."""
        details = self._usage.get("completion_tokens_details") or {}
        hidden = int(details.get("reasoning_tokens") or 0) - self._yielded_reasoning
        return max(0, min(hidden, extra_tokens))

    @abstractmethod
    def _add(self, chunk: Mapping[str, Any]) -> tuple[str, str]:
        """Read an event and return its reasoning and its text."""

    @abstractmethod
    def _calls(self) -> list[tuple[str, str]]:
        """Return the names and the arguments of the calls so far."""

    def _complete_calls(self, reason: AnswerEnd) -> list[tuple[str, str]]:
        """Return the calls, except one that the token limit cut off.

        As with OpenAI, the caller gets also one of an unknown function, or whose arguments are not JSON: another
        attempt would hardly generate anything else, and the endpoint bills it.
        """
        calls = self._calls()[: self._output_format.max_calls]
        return calls[:-1] if calls and reason != "stop" and not _is_json(calls[-1][1]) else calls

    def _check(self, calls: Sequence[object]) -> None:
        """Check the complete answer: not every endpoint enforces the output format, and none reports a violation."""
        if self._output_format.must_call_tool and not calls:
            raise PermanentFailure("The model called no function, although a call was required", code=VIOLATION)
        if self._output_format.schema is not None and not calls and not _is_json("".join(self._text)):
            raise PermanentFailure("The model's answer is not JSON, although JSON was required", code=VIOLATION)


class CompletionReader(AnswerReader):
    """Reads the chunks of Chat Completions."""

    def __init__(self, output_format: OutputFormat) -> None:
        super().__init__(output_format)
        self._call_reader = CallReader()

    def _add(self, chunk: Mapping[str, Any]) -> tuple[str, str]:
        if error := chunk.get("error"):
            raise error_in_stream(error)
        self._usage = chunk.get("usage") or self._usage
        reasoning = text = ""
        for choice in chunk.get("choices") or ():
            # A complete message, if the endpoint does not stream.
            delta = choice.get("delta") or choice.get("message") or {}
            reasoning += _text_of(delta.get("reasoning_content") or delta.get("reasoning"))
            text += _text_of(delta.get("content")) + (delta.get("refusal") or "")
            self._logprobs += map(logprob, (choice.get("logprobs") or {}).get("content") or ())
            for call in delta.get("tool_calls") or ():
                self._call_reader.add(call)
            if reason := choice.get("finish_reason"):
                self._reason = ANSWER_ENDS.get(reason, "stop")
        return self._reasoning_halves.add(reasoning), self._halves.add(text)

    def _calls(self) -> list[tuple[str, str]]:
        return [call.complete for call in self._call_reader.calls]


def _text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or "" for part in content)


def logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    token, data = join_halves(entry["token"]), entry.get("bytes")
    top = tuple(map(logprob, entry.get("top_logprobs") or ()))
    other = None if data is None or bytes(data) == token.encode() else bytes(data)
    return TokenLogprob(token, float(entry["logprob"]), other, top)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
