"""From what a model writes to what is told: text as far as it can be continued from, and calls once they are whole."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import orjson

from pipelines.inference.delimiter_scanner import DelimiterScanner
from pipelines.inference.engine import (
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    OutputFormat,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.inference.llamacpp.tool_prompt import ARGUMENTS_KEY, CALL_CLOSE, CALL_OPEN, NAME_KEY

#: What begins a call, and what ends it: no JSON holds a line break before `</`, outside of a string nor in one.
CALL_START = CALL_OPEN.strip()


class OutputParser:
    """Splits one answer, which goes on after `prefix` and `calls`.

    done  the answer is at its end although the model would go on
    """

    def __init__(self, output_format: OutputFormat, sampling: Sampling, prefix: str, calls: Sequence[ToolCall]) -> None:
        self.done = False
        self._form = output_format
        self._marks = DelimiterScanner([CALL_START, *sampling.stop] if output_format.callable_tools else [])
        self._made = [(call.name, call.arguments) for call in calls]
        self._whole = prefix
        self._text = ""  # of the answer, not told yet
        self._call: str | None = "" if calls else None  # what was written of a call and its surroundings
        self._count = self._told = 0
        self._checked = not sampling.stop

    def parse(self, pieces: Iterable[Token | Finish]) -> Iterator[EngineOutput]:
        """What is to be told. Raises EngineError where the model broke its form."""
        for piece in pieces:
            if isinstance(piece, Finish):
                yield from self._finish(piece)
            elif not self.done:
                self._count += piece.count
                yield from self._add(piece.text)

    def _add(self, text: str) -> Iterator[EngineOutput]:
        if self._call is None:
            sure, mark, text = self._marks.feed(text)
            self._text += sure
            if mark == CALL_START:
                self._call = ""
                yield from self._tell(self._text.rstrip())
            else:
                self.done = mark is not None
                # White space waits: it may be all that comes before a call.
                yield from self._tell(
                    self._text.rstrip() if self._form.callable_tools and not self.done else self._text
                )
        if self._call is not None:
            self._call += text
            yield from self._calls()

    def _calls(self) -> Iterator[GeneratedCall]:
        """The calls that have become whole."""
        assert self._call is not None
        while not self.done and (end := self._call.find(CALL_CLOSE)) >= 0:
            call = _parsed(self._call[:end].strip().removeprefix(CALL_START), self._form)
            self._call = self._call[end + len(CALL_CLOSE) :]
            if call in self._made:  # small models don't know when to end, and call the same again and again
                self.done = True
                return
            self._made.append(call)
            yield GeneratedCall(*call, self._taken())

    def _finish(self, finish: Finish) -> Iterator[EngineOutput]:
        reason = "stop" if self.done else finish.reason
        if self._call is None:
            yield from self._tell(self._text + ("" if self.done else self._marks.flush()))
        if reason == "stop":
            self._check()
        yield replace(finish, reason=reason, generated_tokens=self._told)

    def _tell(self, text: str) -> Iterator[Token]:
        self._text = self._text[len(text) :]
        if text:
            self._whole += text
            yield Token(text, self._taken())

    def _taken(self) -> int:
        count, self._count = self._count, 0
        self._told += count
        return count

    def _check(self) -> None:
        """A grammar that llama.cpp doesn't know holds nothing, and it doesn't say so."""
        if self._form.must_call_tool and not self._made:
            raise EngineError("the model called no function, although it had to")
        if self._form.schema is None or self._made or not self._checked:
            return
        try:
            orjson.loads(self._whole)
        except orjson.JSONDecodeError:
            raise EngineError("the model's answer is not JSON, although it had to be") from None


def _parsed(text: str, output_format: OutputFormat) -> tuple[str, str]:
    """Name and arguments of a call, the arguments to the letter. Raises EngineError."""
    name, between, rest = text.strip().removeprefix(NAME_KEY).partition(ARGUMENTS_KEY)
    try:
        named, arguments = orjson.loads(name), rest[:-1]
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        named = arguments = ""
    if not between or named not in {tool.name for tool in output_format.callable_tools}:
        raise EngineError("the model's call is none of a function that it has")
    return named, arguments
