"""The Protocol that every engine implements, and the types of its arguments and results.

The iterator of `generate` belongs to one thread. It yields `ReasoningToken`s, then `Token`s, then `GeneratedCall`s, any
number of each, and ends with exactly one `Finish`. Continuing an answer is part of the contract because a worker may
crash in the middle of one: the next attempt passes what the client has already received, and gets only what follows it.
A call reaches the client whole or not at all, so a partial call is never continued: it is generated again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from models.platform.errors import SanghaError

#: Calls that one answer may contain: a small model may repeat calls without end.
MAX_CALLS = 16


class EngineError(SanghaError):
    """The engine failed, and another attempt may succeed. Raise PermanentFailure where none can."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call that the model requests. `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the prompt. An assistant message at the end is a partial answer, which the engine continues.

    calls      of an assistant message: the function calls that it requested
    call_id    of a tool message: the call whose result `content` is
    name       who wrote it, if the prompt contains the name: see `pipelines.inference.speakers`
    reasoning  of an assistant message: what the model wrote before it
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    name: str | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What an answer may consist of; by default plain text.

    tools        functions that may be called; ignored with the choice `none`
    tool_choice  auto, none, required, or `("function", name)` for exactly that one
    parallel     whether one answer may contain several calls
    schema       the JSON Schema that a text must satisfy; `{}` is any JSON object; None is free text
    effort       of reasoning, from `none` to `max`; None: the model's default
    template     arguments of the chat template, such as `enable_thinking`
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | tuple[Literal["function"], str] = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    effort: str | None = None
    template: Mapping[str, Any] = field(default_factory=dict)

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
        """The most calls that the answer may contain: one where they may not be parallel or the function is given."""
        return MAX_CALLS if self.parallel and not isinstance(self.tool_choice, tuple) else 1

    @property
    def must_call_tool(self) -> bool:
        """Whether the answer must consist of calls."""
        return bool(self.tools) and self.tool_choice not in ("auto", "none")


PLAIN_TEXT = OutputFormat()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are sampled. None is the engine's default.

    max_output_tokens   tokens that this generation may produce, not counting those of the prefix
    temperature         0 is greedy, and so deterministic
    stop                texts that end the answer and are left out of it
    top_k               0 or less: all tokens
    presence_penalty    subtracted from the logits of tokens that occur in the text
    frequency_penalty   the same, times the number of their occurrences
    repetition_penalty  divides the logits of tokens that occur in the text; 1 has no effect
    logit_bias          pairs of a token number and the number that is added to its logit
    min_tokens          tokens before the model may end the answer by itself; a stop text ends it in any case
    ignore_eos          the model may not end the answer by itself
    top_logprobs        the number of alternatives with each token's log probability; None: no log probabilities
    """

    max_output_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability of a token, before biases and penalties, and those of the most likely tokens in its position.

    data  the token's bytes, if they are not those of `token`, because it is a part of a character
    """

    token: str
    logprob: float
    data: bytes | None = None
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text and the number of generated tokens in it: a character may need several tokens.

    logprobs  of its tokens in order, if requested; for a character in several tokens only that of the last
    """

    text: str
    count: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningToken:
    """A piece of the model's reasoning, and the number of generated tokens in it."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class GeneratedCall:
    """A complete call of one of the tools, and the number of its tokens. It gets its id when it is journalled."""

    name: str
    arguments: str
    count: int


#: Why an answer ended: by itself, at its limit of tokens, or because the endpoint withholds the rest.
AnswerEnd = Literal["stop", "length", "content_filter"]

#: Why a generation ended.
GenerationEnd = AnswerEnd | Literal["cancelled"]


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a generation.

    prompt_tokens     tokens of the templated prompt without the prefix; 0 when cancelled before they were counted
    cached_tokens     how many of those were in the engine's cache, from any account: see `own_prompts`
    generated_tokens  the sum of all `count`s: what is billed is what was journalled
    hidden_reasoning  how many of those were reasoning whose text the endpoint does not return
    """

    reason: GenerationEnd
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    hidden_reasoning: int = 0


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The engine has read the prompt and generates. It precedes the output, once, of engines that know it by then.

    prompt_tokens, cached_tokens  as in Finish
    """

    prompt_tokens: int
    cached_tokens: int


#: What `generate` yields.
EngineOutput = PromptRead | ReasoningToken | Token | GeneratedCall | Finish


class Engine(Protocol):
    """Generates text. `count` and `generate` may be called from many threads at once.

    name            the model's name, as clients know it
    endpoint        the upstream that serves it, by which its price may differ; empty: the model runs in this process
    reasons         whether an answer may begin with reasoning
    continues       whether `prefix` is continued; False ignores it and begins the answer again
    counts_exactly  whether `count` is exact; otherwise it is an estimate
    slots           concurrent generations; further ones wait in `generate`
    context         tokens of a slot, prompt and answer together
    """

    name: str
    endpoint: str
    reasons: bool
    counts_exactly: bool
    continues: bool
    slots: int
    context: int

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Count the prompt's tokens with the chat template applied and the tools described.

        Exact where the model runs in the process, otherwise an estimate.
        """

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Return a number of tokens that `count` cannot fall below, within milliseconds; 0 where none is known.

        It is asked before `count`, which may take seconds for a prompt that cannot fit into the context.
        """

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
        """Generate an answer in the output format, or what follows `prefix` and `calls`, which are answered already.

        `reasoning` precedes both. If the answer has only reasoning so far, it may be incomplete, and is continued.

        A text is yielded up to where it can be continued: never a part of a possible stop text or call. A call is
        yielded once it is complete; one that `max_output_tokens` cuts off is dropped.

        Where SANGHA_PROMPT_CACHE is `account`, a prompt shares the engine's cache only with those of the same
        `cache_owner`, and without an owner with none.

        `cancelled` is called at every token and every few milliseconds in between, in the iterating thread. Once it
        returns True, the slot is freed and `Finish("cancelled")` follows. Closing the iterator frees the slot, too.
        An exception of `cancelled` propagates to the caller.

        Raises PermanentFailure (`context_length_exceeded`, `invalid_request`) and EngineError.
        """

    def close(self) -> None:
        """Cancel running generations and free the memory."""


@runtime_checkable
class ContinuesSome(Protocol):
    """An engine that does not continue every answer, although it `continues`."""

    def can_continue(self, output_format: OutputFormat, text: str, reasoning: str) -> bool:
        """Return whether an answer with this text and reasoning is continued; False begins it again."""
