"""An engine that plays a script: for tests, and for measuring the platform without a model's weight.

It understands nothing. Whatever the prompt, it answers `w0 w1 w2 … `, so that a gap, a repeat or a rewrite shows at
a glance, and it fails on demand at a known token. Where it must call a function, or the last message is a user's with
`call NAME` in it, it calls, with the smallest arguments that the schema allows; where it must answer by a schema, it
gives the smallest such JSON. `models.platform.settings.Script` says what can be set.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import orjson

from models.platform.errors import PermanentFailure
from models.platform.settings import Script, Settings
from pipelines.inference.delimiter_scanner import Marks
from pipelines.inference.engine import (
    PLAIN,
    Call,
    EngineError,
    Finish,
    Form,
    Message,
    Piece,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.llamacpp.grammar import check
from pipelines.inference.scripted import MODEL_NAME
from pipelines.inference.scripted.minimal_json import minimal

#: Seconds between two looks at `cancelled` while waiting.
POLL = 0.01

#: The tokens of JSON: up to a mark of its own, or white space.
JSON_TOKEN = re.compile(r"[^\s,:{}\[\]]*[\s,:{}\[\]]|.+", re.DOTALL)


class ScriptedEngine:
    """The engine of `SANGHA_ENGINE=scripted`. Its tokens are words, in prompts as in answers; a call is one."""

    def __init__(self, settings: Settings) -> None:
        self.script: Script = settings.script
        self.name = MODEL_NAME
        self.continues = not settings.script.restarts
        self.slots = settings.slots
        self.context = settings.context

    def count(self, prompt: Sequence[Message], form: Form = PLAIN) -> int:
        """Whitespace-separated words, and one for each call and each tool."""
        words = sum(len(message.content.split()) + len(message.calls) for message in prompt)
        return words + len(form.callable)

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        form: Form = PLAIN,
        calls: Sequence[ToolCall] = (),
    ) -> Iterator[Piece]:
        """Play the script from where it was cut, to the letter. A token cut in two counts where it is completed."""
        part = self._part(prompt, form)
        first, cut = part.place(prefix, len(calls)) if self.continues else (0, 0)
        last = min(part.length, first + sampling.max_output_tokens)
        telling = Telling(sampling.stop)
        armed = self.script.trigger in _last_user_message(prompt)
        reason: Literal["stop", "length", "cancelled"] = "stop" if last == part.length else "length"
        began = time.monotonic()
        for index in range(first, last):
            if armed:
                self._strike(index, first, cancelled)
            if self._wait(began, index - first, cancelled):
                reason = "cancelled"
                break
            if index < part.size:
                yield from telling.text(part.text(index)[cut:])
                cut = 0
            else:
                yield from telling.call(part.tools[index - part.size])
            if telling.stopped:
                reason = "stop"
                break
        yield from telling.rest()
        yield Finish(reason, self.count(prompt, form), 0, telling.told)

    def close(self) -> None:
        """Nothing is held."""

    def _part(self, prompt: Sequence[Message], form: Form) -> "Part":
        """What the script plays for this prompt. Raises PermanentFailure("invalid_request")."""
        check(form)
        if form.must_call:
            return Part(0, form.callable[:1] * min(self.script.calls, form.most_calls))
        if asked := _asked(prompt, form):
            return Part(self.script.preface, (asked,) * min(self.script.calls, form.most_calls))
        if form.schema is not None:
            texts = JSON_TOKEN.findall(_smallest(form.schema or {"type": "object"}))
            return Part(len(texts), (), texts)
        return Part(self.script.tokens, ())

    def _strike(self, index: int, first: int, cancelled: Callable[[], bool]) -> None:
        """Do what the script says for this token, unless an earlier attempt got as far: it was struck then."""
        if index == first and index > 0:
            return
        if index == self.script.fail_at:
            raise EngineError(f"the script fails before token {index}")
        if index == self.script.exit_at:
            os._exit(1)
        while index == self.script.hang_at and not cancelled():
            time.sleep(POLL)

    def _wait(self, began: float, generated: int, cancelled: Callable[[], bool]) -> bool:
        """Keep to the schedule, whose first token is due at once. Returns True as soon as it is cancelled."""
        if not self.script.rate:
            return cancelled()
        due = began + generated / self.script.rate
        while not cancelled():
            left = due - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, POLL))
        return True


@dataclass(frozen=True, slots=True)
class Part:
    """What is played: `size` tokens of text, the script's own where `texts` are none, then a call of each tool."""

    size: int
    tools: Sequence[Tool]
    texts: Sequence[str] = ()

    @property
    def length(self) -> int:
        """All its tokens."""
        return self.size + len(self.tools)

    def text(self, index: int) -> str:
        """A token of text."""
        return self.texts[index] if self.texts else f"w{index} "

    def place(self, prefix: str, calls: int) -> tuple[int, int]:
        """Where what was told ends: the token to go on with, and how many of its characters were told."""
        if calls:
            return self.size + calls, 0
        if not self.texts:  # such a prefix ends inside a token unless it ends with a space
            return prefix.count(" "), len(prefix.rpartition(" ")[2])
        ends = [0, *accumulate(len(text) for text in self.texts)]
        index = next((place for place, end in enumerate(ends[1:]) if end > len(prefix)), len(self.texts))
        return index, len(prefix) - ends[index]


class Telling:
    """Tells the tokens as they are played, but for stop texts and what may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stopped = False
        self.told = 0
        self._marks = Marks(stop) if any(stop) else None
        self._waiting = 0

    def text(self, piece: str) -> Iterator[Token]:
        """A token of text."""
        self._waiting += 1
        if self._marks is not None:
            piece, mark, _ = self._marks.add(piece)
            self.stopped = mark is not None
        yield from self._tell(piece)

    def call(self, tool: Tool) -> Iterator[Piece]:
        """A token that is a call."""
        yield from self.rest()
        self._waiting += 1
        yield Call(tool.name, _smallest(tool.parameters or {"type": "object"}), self._taken())

    def rest(self) -> Iterator[Token]:
        """What waited and was text after all."""
        if self._marks is not None and not self.stopped:
            yield from self._tell(self._marks.rest())

    def _tell(self, text: str) -> Iterator[Token]:
        if text:
            yield Token(text, self._taken())

    def _taken(self) -> int:
        count, self._waiting = self._waiting, 0
        self.told += count
        return count


def _last_user_message(prompt: Sequence[Message]) -> str:
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")


def _asked(prompt: Sequence[Message], form: Form) -> Tool | None:
    """The tool that the last message asks to call. A result asks for nothing."""
    said = prompt[-1].content if prompt and prompt[-1].role == "user" else ""
    return next((tool for tool in form.callable if f"call {tool.name}" in said), None)


def _smallest(schema: object) -> str:
    try:
        return orjson.dumps(minimal(schema)).decode()
    except RecursionError as error:
        raise PermanentFailure(str(error), code="invalid_request") from error
