"""What generates text: the Protocol that every engine fulfils, and the types that cross it.

The iterator of `generate` belongs to one thread. It ends with exactly one `Finish`, after zero or more `Token`s and
then zero or more `Call`s. Continuing is part of the contract because a worker may die mid-answer: the next attempt
hands over what the client has already read, and only what is new comes back. Of a call the client reads nothing before
it is whole, so a call is never continued: it is made, or made anew.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from models.platform.errors import SanghaError

#: Calls that one answer may hold: a small model doesn't know when to end.
MAX_CALLS = 16


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
class OutputFormat:
    """What an answer may look like; by default plain text.

    tools        functions that may be called; with the choice `none` as good as absent
    tool_choice  auto, none, required, or `("function", name)` for that one
    parallel     whether one answer may hold several calls
    schema       the JSON Schema that a text must satisfy; `{}` is any JSON object; None is free text
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | tuple[Literal["function"], str] = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that this answer may call."""
        match self.tool_choice:
            case "none":
                return ()
            case ("function", name):
                return tuple(tool for tool in self.tools if tool.name == name)
            case _:
                return self.tools

    @property
    def max_calls(self) -> int:
        """How many calls the answer may hold: one where they may not be parallel, or where it is known which."""
        return MAX_CALLS if self.parallel and not isinstance(self.tool_choice, tuple) else 1

    @property
    def must_call_tool(self) -> bool:
        """Whether only calls will do."""
        return bool(self.tools) and self.tool_choice not in ("auto", "none")


PLAIN_TEXT = OutputFormat()


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
class GeneratedCall:
    """A call of one of the form's tools, whole. `count` is as in Token; who journals the call gives it its id."""

    name: str
    arguments: str
    count: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The last item of a generation.

    prompt_tokens     tokens of the templated prompt without the prefix; 0 when cancelled before it was read
    cached_tokens     how many of those the engine still held
    generated_tokens  the sum of the counts given out, so that what is billed is what was journalled
    """

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


#: What comes out of a generation.
EngineOutput = Token | GeneratedCall | Finish


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

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Tokens of the prompt with the chat template applied and the form's tools described.

        Exact where the model is in the process, an estimate where it is not.
        """

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
        """Answer the prompt in the form asked for, going on after `prefix` and `calls`, which are answered already.

        Text is told up to where it can be continued from: never inside what may yet become a stop text or a call.
        A call comes once it is whole; one that `max_output_tokens` cuts does not come.

        `cancelled` is asked at every token and every few milliseconds between, in the thread that iterates. Once it
        says True the slot is freed and `Finish("cancelled")` follows. Closing the iterator frees the slot as well.
        What `cancelled` raises comes out of the iterator.

        Raises PermanentFailure (`context_length_exceeded`, `invalid_request`) and EngineError.
        """

    def close(self) -> None:
        """Stop what is running and give the memory back."""
