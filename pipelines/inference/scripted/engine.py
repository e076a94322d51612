"""Play a script instead of generating text, to test and to measure the platform without a model's computing time.

Whatever the prompt, the answer is `w0 w1 w2 … `, so that a gap, a repeat or a rewrite is easy to see, and faults occur
at a known token. Where a call is required, or `call NAME` is in the last question or the instructions, the answer is a
call with the smallest arguments that the schema admits, or several (`call NAME 5 times`), once or in several steps
(`in 3 steps`); where a schema is given, it is the smallest such JSON.
`models.platform.settings.Script` has the options.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import orjson

from models.platform.errors import PermanentFailure
from models.platform.script import Script
from models.platform.settings import Settings
from pipelines.inference.delimiter_scanner import DelimiterScanner
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    GeneratedCall,
    Message,
    OutputFormat,
    ReasoningToken,
    Sampling,
    Token,
    TokenLogprob,
    Tool,
    ToolCall,
)
from pipelines.inference.json_schema import check_output_format
from pipelines.inference.logprobs import LogprobBuffer
from pipelines.inference.registry import context_size, model_name
from pipelines.inference.scripted.minimal_json import minimal_value
from pipelines.inference.speakers import labelled_text

#: Seconds between two calls of `cancelled` while waiting.
POLL_INTERVAL = 0.01

#: The word in the last user message that asks for an answer at the script's `slow` rate.
SLOW_WORD = "slowly"

#: In the last question or the instructions: which tool to call, how often at once, and in how many steps.
REQUEST, STEPS = r"call {}(?![\w-])(?: (\d+) times)?", re.compile(r"in (\d+) steps")

#: A token of JSON: up to and including a delimiter or white space.
JSON_TOKEN = re.compile(r"[^\s,:{}\[\]]*[\s,:{}\[\]]|.+", re.DOTALL)


class ScriptedEngine:
    """Plays the script. Its tokens are words, in prompts and in answers; a call is one token. See Engine."""

    endpoint = ""
    counts_exactly = True

    def __init__(self, settings: Settings) -> None:
        self.script: Script = settings.script
        self.name = model_name(settings)
        self.continues = not settings.script.restarts
        self.reasons = settings.script.reasoning > 0
        self.slots = settings.slots
        self.context = context_size(settings)

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Count whitespace-separated words, and one for each call and each tool."""
        words = sum(len(labelled_text(message).split()) + len(message.calls) for message in prompt)
        return words + len(output_format.callable_tools)

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. `count` is quick."""
        return 0

    def generate(
        self,
        prompt: Sequence[Message],
        *,
        prefix: str,
        sampling: Sampling,
        cancelled: Callable[[], bool],
        output_format: OutputFormat = PLAIN_TEXT,
        reasoning: str = "",
        calls: Sequence[ToolCall] = (),
        cache_owner: str | None = None,
    ) -> Iterator[EngineOutput]:
        """Play the script from exactly where it was cut. A token that was cut in two counts when it is completed."""
        playback = self._playback(prompt, output_format, secrets.token_hex(2) if self.script.nonce else "")
        first, offset = playback.position_after(prefix, len(calls), reasoning) if self.continues else (0, 0)
        playback = playback.lengthened(first, sampling)
        last = min(playback.length, first + sampling.max_output_tokens)
        filter_ = StopFilter(sampling.stop, sampling.top_logprobs)
        request = _last_user_message(prompt)
        faults_enabled = self.script.trigger in request
        rate = self.script.slow if self.script.slow and SLOW_WORD in request else self.script.rate
        reason: Literal["stop", "length", "cancelled"] = "stop" if last == playback.length else "length"
        start = time.monotonic()
        for index in range(first, last):
            if faults_enabled:
                self._cause_fault(index, first, cancelled)
            if _wait(rate, start, index - first, cancelled):
                reason = "cancelled"
                break
            yield from filter_.play(playback, index, offset)
            offset = 0
            if filter_.stopped:
                reason = "stop"
                break
        yield from filter_.flush()
        yield Finish(reason, self.count(prompt, output_format), 0, filter_.released_tokens)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _playback(self, prompt: Sequence[Message], output_format: OutputFormat, nonce: str) -> "Playback":
        """Return what to play for this prompt. Raises PermanentFailure("invalid_request")."""
        playback = self._answer(prompt, output_format, nonce)
        disabled = output_format.effort == "none" or output_format.template.get("enable_thinking") is False
        return playback if disabled else replace(playback, reasoning=self.script.reasoning)

    def _answer(self, prompt: Sequence[Message], output_format: OutputFormat, nonce: str) -> "Playback":
        check_output_format(output_format)
        if output_format.must_call_tool:
            return Playback(0, output_format.callable_tools[:1] * min(self.script.calls, output_format.max_calls))
        if calls := _requested_calls(prompt, output_format, self.script.calls):
            return Playback(self.script.preface, calls[: output_format.max_calls], nonce=nonce)
        if output_format.schema is not None:
            texts = JSON_TOKEN.findall(_smallest_json(output_format.schema or {"type": "object"}))
            return Playback(len(texts), (), texts)
        return Playback(self.script.tokens, (), nonce=nonce)

    def _cause_fault(self, index: int, first: int, cancelled: Callable[[], bool]) -> None:
        """Cause the script's fault for this token, unless an earlier attempt got this far: then it has occurred."""
        if index == first and index > 0:
            return
        if index == self.script.fail_at:
            raise EngineError(f"The script fails before token {index}")
        if index == self.script.exit_at:
            os._exit(1)
        while index == self.script.hang_at and not cancelled():
            time.sleep(POLL_INTERVAL)


@dataclass(frozen=True, slots=True)
class Playback:
    """An answer to play: reasoning, `size` tokens of text, the script's own without `texts`, then a call of each tool.

    nonce      a part of each of the script's own tokens, by which a test detects a text of two attempts
    reasoning  the number of its tokens
    """

    size: int
    tools: Sequence[Tool]
    texts: Sequence[str] = ()
    nonce: str = ""
    reasoning: int = 0

    @property
    def length(self) -> int:
        """The number of its tokens."""
        return self.reasoning + self.size + len(self.tools)

    def text(self, index: int) -> str:
        """Return the text of a token."""
        if self.texts:
            return self.texts[index]
        return f"w{index}.{self.nonce} " if self.nonce else f"w{index} "

    def lengthened(self, first: int, sampling: Sampling) -> "Playback":
        """Return the answer with as many of the script's own tokens after `first` as the sampling requires."""
        if self.texts or self.tools:
            return self
        end = first + (sampling.max_output_tokens if sampling.ignore_eos else sampling.min_tokens)
        return replace(self, size=max(self.size, end - self.reasoning))

    def position_after(self, prefix: str, calls: int, reasoning: str) -> tuple[int, int]:
        """Return where a partial answer ends: the next token, and how many of its characters are already there."""
        if calls:
            return self.reasoning + self.size + calls, 0
        if not prefix:
            return min(reasoning.count(" "), self.reasoning), len(reasoning.rpartition(" ")[2])
        if not self.texts:  # each token ends with a space
            return self.reasoning + prefix.count(" "), len(prefix.rpartition(" ")[2])
        ends = [0, *accumulate(len(text) for text in self.texts)]
        index = next((position for position, end in enumerate(ends[1:]) if end > len(prefix)), len(self.texts))
        return self.reasoning + index, len(prefix) - ends[index]


class StopFilter:
    """Releases tokens as they are played, without stop texts and what may become one."""

    def __init__(self, stop: Sequence[str], top_logprobs: int | None = None) -> None:
        self.stopped = False
        self.released_tokens = 0
        self._scanner = DelimiterScanner(stop) if any(stop) else None
        self._held_tokens = 0
        self._top_logprobs = top_logprobs
        self._logprobs = LogprobBuffer()

    def play(self, playback: Playback, index: int, offset: int) -> Iterator[EngineOutput]:
        """Play the token at `index`, without its first `offset` characters."""
        position = index - playback.reasoning
        if position < 0:
            self.released_tokens += 1
            yield ReasoningToken(f"r{index} "[offset:], 1)
        elif position < playback.size:
            yield from self.text(playback.text(position)[offset:])
        else:
            yield from self.call(playback.tools[position - playback.size])

    def text(self, piece: str) -> Iterator[Token]:
        """Play a token of text."""
        self._held_tokens += 1
        self._logprobs.add(Token(piece, 1, self._certainty(piece)))
        if self._scanner is not None:
            piece, delimiter, _ = self._scanner.feed(piece)
            self.stopped = delimiter is not None
        yield from self._release(piece)

    def call(self, tool: Tool) -> Iterator[EngineOutput]:
        """Play a token that is a call."""
        yield from self.flush()
        self._held_tokens += 1
        yield GeneratedCall(tool.name, _smallest_json(tool.parameters or {"type": "object"}), self._take_tokens())

    def flush(self) -> Iterator[Token]:
        """Release the text that was held back."""
        if self._scanner is not None and not self.stopped:
            yield from self._release(self._scanner.flush())

    def _certainty(self, piece: str) -> tuple[TokenLogprob, ...]:
        """Return the log probability of a token of the script, which is 0."""
        if self._top_logprobs is None:
            return ()
        return (TokenLogprob(piece, 0.0, top=(TokenLogprob(piece, 0.0),) if self._top_logprobs else ()),)

    def _release(self, text: str) -> Iterator[Token]:
        if text:
            yield Token(text, self._take_tokens(), self._logprobs.take(text))

    def _take_tokens(self) -> int:
        count, self._held_tokens = self._held_tokens, 0
        self.released_tokens += count
        return count


def _wait(rate: float, start: float, generated: int, cancelled: Callable[[], bool]) -> bool:
    """Wait until the token is due; the first is due at once. Returns True as soon as it is cancelled."""
    if not rate:
        return cancelled()
    due = start + generated / rate
    while not cancelled():
        remaining = due - time.monotonic()
        if remaining <= 0:
            return False
        time.sleep(min(remaining, POLL_INTERVAL))
    return True


def _last_user_message(prompt: Sequence[Message]) -> str:
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")


def _requested_calls(prompt: Sequence[Message], output_format: OutputFormat, calls: int) -> tuple[Tool, ...]:
    """Return the tools that the last question or the instructions ask to call, once or in several steps.

    calls  the number of calls of a tool for which they name none
    """
    question = max((number for number, message in enumerate(prompt) if message.role == "user"), default=0)
    text = " ".join(message.content for number, message in enumerate(prompt)
                    if message.role == "system" or number == question)  # fmt: skip
    rounds = sum(message.role == "assistant" and bool(message.calls) for message in prompt[question:])
    steps = STEPS.search(text)
    if rounds >= (int(steps[1]) if steps else 1):
        return ()
    requested = [(tool, REQUEST.format(re.escape(tool.name))) for tool in output_format.callable_tools]
    return tuple(tool for tool, request in requested if (found := re.search(request, text))
                 for _ in range(int(found[1] or calls)))  # fmt: skip


def _smallest_json(schema: object) -> str:
    try:
        return orjson.dumps(minimal_value(schema)).decode()
    except RecursionError as error:
        raise PermanentFailure(str(error), code="invalid_request") from error
