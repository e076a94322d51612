"""From what a model writes to what is told: text as far as it can be continued from, and calls once they are whole."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import orjson

from pipelines.inference.delimiter_scanner import Marks
from pipelines.inference.engine import Call, EngineError, Finish, Form, Piece, Sampling, Token, ToolCall
from pipelines.inference.llamacpp.tool_prompt import ARGUMENTS, CLOSE, NAME, OPEN

#: What begins a call, and what ends it: no JSON holds a line break before `</`, outside of a string nor in one.
BEGIN = OPEN.strip()


class Splitter:
    """Splits one answer, which goes on after `prefix` and `calls`.

    done  the answer is at its end although the model would go on
    """

    def __init__(self, form: Form, sampling: Sampling, prefix: str, calls: Sequence[ToolCall]) -> None:
        self.done = False
        self._form = form
        self._marks = Marks([BEGIN, *sampling.stop] if form.callable else [])
        self._made = [(call.name, call.arguments) for call in calls]
        self._whole = prefix
        self._text = ""  # of the answer, not told yet
        self._call: str | None = "" if calls else None  # what was written of a call and its surroundings
        self._count = self._told = 0
        self._checked = not sampling.stop

    def split(self, pieces: Iterable[Token | Finish]) -> Iterator[Piece]:
        """What is to be told. Raises EngineError where the model broke its form."""
        for piece in pieces:
            if isinstance(piece, Finish):
                yield from self._finish(piece)
            elif not self.done:
                self._count += piece.count
                yield from self._add(piece.text)

    def _add(self, text: str) -> Iterator[Piece]:
        if self._call is None:
            sure, mark, text = self._marks.add(text)
            self._text += sure
            if mark == BEGIN:
                self._call = ""
                yield from self._tell(self._text.rstrip())
            else:
                self.done = mark is not None
                # White space waits: it may be all that comes before a call.
                yield from self._tell(self._text.rstrip() if self._form.callable and not self.done else self._text)
        if self._call is not None:
            self._call += text
            yield from self._calls()

    def _calls(self) -> Iterator[Call]:
        """The calls that have become whole."""
        assert self._call is not None
        while not self.done and (end := self._call.find(CLOSE)) >= 0:
            call = _parsed(self._call[:end].strip().removeprefix(BEGIN), self._form)
            self._call = self._call[end + len(CLOSE) :]
            if call in self._made:  # small models don't know when to end, and call the same again and again
                self.done = True
                return
            self._made.append(call)
            yield Call(*call, self._taken())

    def _finish(self, finish: Finish) -> Iterator[Piece]:
        reason = "stop" if self.done else finish.reason
        if self._call is None:
            yield from self._tell(self._text + ("" if self.done else self._marks.rest()))
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
        if self._form.must_call and not self._made:
            raise EngineError("the model called no function, although it had to")
        if self._form.schema is None or self._made or not self._checked:
            return
        try:
            orjson.loads(self._whole)
        except orjson.JSONDecodeError:
            raise EngineError("the model's answer is not JSON, although it had to be") from None


def _parsed(text: str, form: Form) -> tuple[str, str]:
    """Name and arguments of a call, the arguments to the letter. Raises EngineError."""
    name, between, rest = text.strip().removeprefix(NAME).partition(ARGUMENTS)
    try:
        named, arguments = orjson.loads(name), rest[:-1]
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        named = arguments = ""
    if not between or named not in {tool.name for tool in form.callable}:
        raise EngineError("the model's call is none of a function that it has")
    return named, arguments
