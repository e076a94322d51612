"""Parse the model's output into text that can be continued, and complete calls."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import orjson

from pipelines.inference.call_markup import COMMON, OBJECT_END, CallMarkup
from pipelines.inference.delimiter_scanner import DelimiterScanner
from pipelines.inference.engine import (
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    OutputFormat,
    PromptRead,
    ReasoningToken,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.inference.logprobs import LogprobBuffer


class OutputParser:
    """Parses one answer, which continues after `prefix` and `calls`.

    done  the answer is complete although the model would go on
    """

    def __init__(
        self,
        output_format: OutputFormat,
        sampling: Sampling,
        prefix: str,
        calls: Sequence[ToolCall],
        markup: CallMarkup = COMMON,
    ) -> None:
        self.done = False
        self._output_format = output_format
        self._markup = markup
        may_call = bool(output_format.callable_tools)
        self._call_starts = [markup.start] if may_call and not markup.starts_answer else []
        # The beginning of an answer that may be a call without markers; None once it is known.
        self._beginning: str | None = "" if may_call and markup.starts_answer and not (prefix or calls) else None
        self._scanner = DelimiterScanner([*self._call_starts, *sampling.stop])
        self._logprobs = LogprobBuffer()
        self._calls_made = [(call.name, call.arguments) for call in calls]
        self._full_text = prefix
        self._pending_text = ""  # The output since the first call's marker; None before it.
        self._pending_call: str | None = "" if calls else None
        self._pending_tokens = self._yielded_tokens = 0
        self._checks_json = not sampling.stop

    def parse(self, outputs: Iterable[PromptRead | ReasoningToken | Token | Finish]) -> Iterator[EngineOutput]:
        """Yield text and calls. Raises EngineError where the model violated the output format."""
        for output in outputs:
            if isinstance(output, Finish):
                yield from self._finish(output)
            elif isinstance(output, PromptRead):
                yield output
            elif isinstance(output, ReasoningToken):
                self._yielded_tokens += output.count
                yield output
            elif not self.done:
                self._pending_tokens += output.count
                self._logprobs.add(output)
                yield from self._add(self._begin(output.text) if self._beginning is not None else output.text)

    def _begin(self, text: str) -> str:
        """Return what is known to be text or a call, of an answer that may be a call without markers."""
        assert self._beginning is not None
        beginning, self._beginning = self._beginning + text, None
        if beginning.startswith(self._markup.start):
            self._pending_call = ""
        elif self._markup.start.startswith(beginning):
            self._beginning, beginning = beginning, ""
        return beginning

    def _add(self, text: str) -> Iterator[EngineOutput]:
        if self._pending_call is None:
            complete, delimiter, text = self._scanner.feed(text)
            self._pending_text += complete
            if delimiter is not None and delimiter in self._call_starts:
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
        if self._markup.starts_answer:  # complete at the end of the answer
            return
        close = self._markup.close  # unambiguous: no JSON has a line break before `</`
        while not self.done and (end := self._pending_call.find(close)) >= 0:
            call = self._parse_call(self._pending_call[:end].strip().removeprefix(self._markup.start))
            self._pending_call = self._pending_call[end + len(close) :]
            if call in self._calls_made:  # small models repeat a call endlessly
                self.done = True
                return
            self._calls_made.append(call)
            yield GeneratedCall(*call, self._take_tokens())

    def _finish(self, finish: Finish) -> Iterator[EngineOutput]:
        if self._beginning:
            yield from self._add(self._take_beginning())
        reason = "stop" if self.done else finish.reason
        if self._pending_call and self._markup.starts_answer and reason == "stop":
            yield from self._bare_call(self._pending_call)
        if self._pending_call is None:
            yield from self._yield_text(self._pending_text + ("" if self.done else self._scanner.flush()))
        if reason == "stop":
            self._check()
        yield replace(finish, reason=reason, generated_tokens=self._yielded_tokens)

    def _take_beginning(self) -> str:
        beginning, self._beginning = self._beginning or "", None
        return beginning

    def _bare_call(self, text: str) -> Iterator[EngineOutput]:
        """Yield an answer that began as a call: as JSON by the schema, if it is not one."""
        try:
            call = self._parse_call(text)
        except EngineError:
            if self._output_format.schema is None:
                raise
            self._pending_call, self._pending_text = None, text
            return
        self._calls_made.append(call)
        yield GeneratedCall(*call, self._take_tokens())

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

    def _parse_call(self, text: str) -> tuple[str, str]:
        """Parse a call into its name and its arguments, unchanged. Raises EngineError."""
        name, separator, rest = text.strip().removeprefix(self._markup.name_key).partition(self._markup.arguments_key)
        try:
            function, arguments = orjson.loads(name), rest.removesuffix(OBJECT_END)
            orjson.loads(arguments)
        except orjson.JSONDecodeError:
            function = arguments = ""
        if not separator or function not in {tool.name for tool in self._output_format.callable_tools}:
            raise EngineError("The model called an unknown function, or with arguments that are not JSON")
        return function, arguments
