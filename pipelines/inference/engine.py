"""What generates text: the Protocol that every engine fulfils, and the types that cross it.

The iterator of `generate` belongs to one thread. It ends with exactly one `Finish`, after zero or more `Token`s.
Continuing is part of the contract because a worker may die mid-answer: the next attempt hands over what the client
has already read, and only new text comes back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from models.errors import SanghaError


class EngineError(SanghaError):
    """The engine failed and another attempt may succeed. What can't succeed raises PermanentFailure instead."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model asks its caller to run. `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. A trailing assistant message is an answer begun: the engine continues it.

    calls    of an assistant: what it asked for
    call_id  of a tool: which of those calls `content` answers
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer may look like; by default plain text.

    tools        functions that may be called
    tool_choice  auto, none, required, or `("function", name)` for that one
    parallel     whether one answer may hold several calls
    schema       the JSON Schema that a text must satisfy; `{}` is any JSON object; None is free text
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | tuple[Literal["function"], str] = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None


PLAIN = Form()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to pick tokens. None leaves a value to the engine's default.

    max_output_tokens  tokens that this call may generate; the caller takes off what was answered before
    temperature        0 is greedy, and so deterministic
    stop               texts that end the answer and are left out of it
    """

    max_output_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text and how many generated tokens it carries: a character may need several tokens."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The last item of a generation.

    prompt_tokens     tokens of the templated prompt without the prefix; 0 when cancelled before it was read
    cached_tokens     how many of those the engine still held
    generated_tokens  the sum of the counts of the tokens given out, so that what is billed is what was journalled
    """

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


class Engine(Protocol):
    """Generates text. `count` and `generate` may be called from many threads at once.

    name       the model's name, as clients see it
    continues  whether `prefix` is continued; False ignores it and begins the answer again
    slots      generations that run at once; more of them wait inside
    context    tokens that a slot holds, prompt and answer together
    """

    name: str
    continues: bool
    slots: int
    context: int

    def count(self, prompt: Sequence[Message]) -> int:
        """Tokens of the prompt with the chat template applied, exact."""

    def generate(
        self, prompt: Sequence[Message], *, prefix: str, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[Token | Finish]:
        """Answer the prompt, going on after `prefix`, which is text already answered.

        `cancelled` is asked at every token and every few milliseconds between, in the thread that iterates. Once it
        says True the slot is freed and `Finish("cancelled")` follows. Closing the iterator frees the slot as well.
        What `cancelled` raises comes out of the iterator.

        Raises PermanentFailure (`context_length_exceeded`, `invalid_request`) and EngineError.
        """

    def close(self) -> None:
        """Stop what is running and give the memory back."""
