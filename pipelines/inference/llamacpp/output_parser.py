"""Parse the model's output into text that can be continued, and complete calls."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import orjson

from pipelines.inference.call_markup import ARGUMENTS_KEY, CALL_CLOSE, CALL_OPEN, NAME_KEY
from pipelines.inference.delimiter_scanner import DelimiterScanner
from pipelines.inference.engine import (
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    OutputFormat,
    ReasoningToken,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.inference.logprobs import LogprobBuffer

#: The marker that begins a call. CALL_CLOSE is unambiguous: no JSON has a line break before `</`.
CALL_START = CALL_OPEN.strip()


class OutputParser:
    """Parses one answer, which continues after `prefix` and `calls`.

    done  the answer is complete although the model would go on
    """

    def __init__(self, output_format: OutputFormat, sampling: Sampling, prefix: str, calls: Sequence[ToolCall]) -> None:
        self.done = False
        self._output_format = output_format
        call_start = [CALL_START] if output_format.callable_tools else []
        self._scanner = DelimiterScanner([*call_start, *sampling.stop])
        self._logprobs = LogprobBuffer()
        self._calls_made = [(call.name, call.arguments) for call in calls]
        self._full_text = prefix
        self._pending_text = ""  # The output since the first call's marker; None before it.
        self._pending_call: str | None = "" if calls else None
        self._pending_tokens = self._yielded_tokens = 0
        self._checks_json = not sampling.stop

    def parse(self, outputs: Iterable[ReasoningToken | Token | Finish]) -> Iterator[EngineOutput]:
        """Yield text and calls. Raises EngineError where the model violated the output format."""
        for output in outputs:
            if isinstance(output, Finish):
                yield from self._finish(output)
            elif isinstance(output, ReasoningToken):
                self._yielded_tokens += output.count
                yield output
            elif not self.done:
                self._pending_tokens += output.count
                self._logprobs.add(output)
                yield from self._add(output.text)

    def _add(self, text: str) -> Iterator[EngineOutput]:
        if self._pending_call is None:
            complete, delimiter, text = self._scanner.feed(text)
            self._pending_text += complete
            if delimiter == CALL_START:
                self._pending_call = ""
                yield from self._yield_text(self._pending_text.rstrip())
            else:
                self.done = delimiter is not None
                # White space is held back: it may precede a call, and is then dropped.
                yield from self._yield_text(
                    self._pending_text.rstrip()
                    if self._output_format.callable_tools and not self.done
                    else self._pending_text
                )
        if self._pending_call is not None:
            self._pending_call += text
            yield from self._complete_calls()

    def _complete_calls(self) -> Iterator[GeneratedCall]:
        """Yield the calls that are complete now."""
        assert self._pending_call is not None
        while not self.done and (end := self._pending_call.find(CALL_CLOSE)) >= 0:
            call = _parse_call(self._pending_call[:end].strip().removeprefix(CALL_START), self._output_format)
            self._pending_call = self._pending_call[end + len(CALL_CLOSE) :]
            if call in self._calls_made:  # small models repeat a call endlessly
                self.done = True
                return
            self._calls_made.append(call)
            yield GeneratedCall(*call, self._take_tokens())

    def _finish(self, finish: Finish) -> Iterator[EngineOutput]:
        reason = "stop" if self.done else finish.reason
        if self._pending_call is None:
            yield from self._yield_text(self._pending_text + ("" if self.done else self._scanner.flush()))
        if reason == "stop":
            self._check()
        yield replace(finish, reason=reason, generated_tokens=self._yielded_tokens)

    def _yield_text(self, text: str) -> Iterator[Token]:
        self._pending_text = self._pending_text[len(text) :]
        if text:
            self._full_text += text
            yield Token(text, self._take_tokens(), self._logprobs.take(text))

    def _take_tokens(self) -> int:
        count, self._pending_tokens = self._pending_tokens, 0
        self._yielded_tokens += count
        return count

    def _check(self) -> None:
        """Check the complete answer: llama.cpp ignores a grammar that it can't parse, without an error."""
        if self._output_format.must_call_tool and not self._calls_made:
            raise EngineError("The model called no function, although a call was required")
        if self._output_format.schema is None or self._calls_made or not self._checks_json:
            return
        try:
            orjson.loads(self._full_text)
        except orjson.JSONDecodeError:
            raise EngineError("The model's answer is not JSON, although JSON was required") from None


def _parse_call(text: str, output_format: OutputFormat) -> tuple[str, str]:
    """Parse a call into its name and its arguments, unchanged. Raises EngineError."""
    name, separator, rest = text.strip().removeprefix(NAME_KEY).partition(ARGUMENTS_KEY)
    try:
        function, arguments = orjson.loads(name), rest[:-1]
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        function = arguments = ""
    if not separator or function not in {tool.name for tool in output_format.callable_tools}:
        raise EngineError("The model called an unknown function, or with arguments that are not JSON")
    return function, arguments
