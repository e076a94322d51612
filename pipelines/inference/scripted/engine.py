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
from pipelines.inference.delimiter_scanner import DelimiterScanner
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    Sampling,
    Token,
    Tool,
    ToolCall,
)
from pipelines.inference.json_schema import check_output_format
from pipelines.inference.scripted import MODEL_NAME
from pipelines.inference.scripted.minimal_json import minimal_value

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

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Whitespace-separated words, and one for each call and each tool."""
        words = sum(len(message.content.split()) + len(message.calls) for message in prompt)
        return words + len(output_format.callable_tools)

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        calls: Sequence[ToolCall] = (),
    ) -> Iterator[EngineOutput]:
        """Play the script from where it was cut, to the letter. A token cut in two counts where it is completed."""
        part = self._part(prompt, output_format)
        first, cut = part.position_after(prefix, len(calls)) if self.continues else (0, 0)
        last = min(part.length, first + sampling.max_output_tokens)
        telling = StopFilter(sampling.stop)
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
        yield from telling.flush()
        yield Finish(reason, self.count(prompt, output_format), 0, telling.released_tokens)

    def close(self) -> None:
        """Nothing is held."""

    def _part(self, prompt: Sequence[Message], output_format: OutputFormat) -> "Playback":
        """What the script plays for this prompt. Raises PermanentFailure("invalid_request")."""
        check_output_format(output_format)
        if output_format.must_call_tool:
            return Playback(0, output_format.callable_tools[:1] * min(self.script.calls, output_format.max_calls))
        if asked := _asked(prompt, output_format):
            return Playback(self.script.preface, (asked,) * min(self.script.calls, output_format.max_calls))
        if output_format.schema is not None:
            texts = JSON_TOKEN.findall(_smallest(output_format.schema or {"type": "object"}))
            return Playback(len(texts), (), texts)
        return Playback(self.script.tokens, ())

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
class Playback:
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

    def position_after(self, prefix: str, calls: int) -> tuple[int, int]:
        """Where what was told ends: the token to go on with, and how many of its characters were told."""
        if calls:
            return self.size + calls, 0
        if not self.texts:  # such a prefix ends inside a token unless it ends with a space
            return prefix.count(" "), len(prefix.rpartition(" ")[2])
        ends = [0, *accumulate(len(text) for text in self.texts)]
        index = next((place for place, end in enumerate(ends[1:]) if end > len(prefix)), len(self.texts))
        return index, len(prefix) - ends[index]


class StopFilter:
    """Tells the tokens as they are played, but for stop texts and what may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stopped = False
        self.released_tokens = 0
        self._marks = DelimiterScanner(stop) if any(stop) else None
        self._waiting = 0

    def text(self, piece: str) -> Iterator[Token]:
        """A token of text."""
        self._waiting += 1
        if self._marks is not None:
            piece, mark, _ = self._marks.feed(piece)
            self.stopped = mark is not None
        yield from self._tell(piece)

    def call(self, tool: Tool) -> Iterator[EngineOutput]:
        """A token that is a call."""
        yield from self.flush()
        self._waiting += 1
        yield GeneratedCall(tool.name, _smallest(tool.parameters or {"type": "object"}), self._taken())

    def flush(self) -> Iterator[Token]:
        """What waited and was text after all."""
        if self._marks is not None and not self.stopped:
            yield from self._tell(self._marks.flush())

    def _tell(self, text: str) -> Iterator[Token]:
        if text:
            yield Token(text, self._taken())

    def _taken(self) -> int:
        count, self._waiting = self._waiting, 0
        self.released_tokens += count
        return count


def _last_user_message(prompt: Sequence[Message]) -> str:
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")


def _asked(prompt: Sequence[Message], output_format: OutputFormat) -> Tool | None:
    """The tool that the last message asks to call. A result asks for nothing."""
    said = prompt[-1].content if prompt and prompt[-1].role == "user" else ""
    return next((tool for tool in output_format.callable_tools if f"call {tool.name}" in said), None)


def _smallest(schema: object) -> str:
    try:
        return orjson.dumps(minimal_value(schema)).decode()
    except RecursionError as error:
        raise PermanentFailure(str(error), code="invalid_request") from error
