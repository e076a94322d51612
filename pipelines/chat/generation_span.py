"""The spans of a turn: of an agent's work in it, and of each generation."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from models.platform import span_names, tracing
from models.platform.tracing import Span, Value
from models.turns.responses import Response
from pipelines.chat.prompt import Prompt
from pipelines.chat.transcript import Transcript
from pipelines.inference.engine import Engine, Finish, Message


def agent_span(response: Response, transcript: Transcript) -> Span:
    """Return the span of the agent that answers a step; none if no agent does."""
    agent = transcript.agent or response.request.get("agent")
    if not tracing.tracing_is_on() or not agent:
        return tracing.NO_SPAN
    attributes: dict[str, Value] = {
        span_names.GEN_AI_OPERATION: "invoke_agent",
        span_names.GEN_AI_AGENT_NAME: agent["name"],
        span_names.GEN_AI_RESPONSE_ID: response.id,
    }
    return tracing.span(span_names.invoke_agent(agent["name"]), "internal", attributes)


class GenerationSpan:
    """The span of one generation: its model, its tokens, and the time of its first one."""

    __slots__ = ("_began", "_prompt", "_span", "_waits")

    def __init__(self, engine: Engine, response: Response, prompt: Prompt, max_tokens: int) -> None:
        self._prompt, self._began = prompt, time.monotonic()
        self._waits = tracing.tracing_is_on()
        self._span: Span = _chat_span(engine, response, max_tokens) if self._waits else tracing.NO_SPAN

    def __enter__(self) -> Self:
        self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, trace)

    def count(self) -> None:
        """Note the first token."""
        if self._waits:
            self._waits = False
            self._span.event(span_names.FIRST_TOKEN)
            self._span.set(span_names.GEN_AI_TIME_TO_FIRST_CHUNK, time.monotonic() - self._began)

    def finish(self, finish: Finish | None, text: str) -> None:
        """Note how the generation has ended. `text` is the answer."""
        if finish is None or self._span is tracing.NO_SPAN:
            return
        self._span.set(span_names.GEN_AI_FINISH_REASONS, [finish.reason])
        self._span.set(span_names.GEN_AI_INPUT_TOKENS, finish.prompt_tokens or self._prompt.tokens)
        self._span.set(span_names.GEN_AI_OUTPUT_TOKENS, finish.generated_tokens)
        if tracing.captures_content():
            self._span.set(span_names.GEN_AI_INPUT_MESSAGES, _content(self._prompt.messages))
            self._span.set(span_names.GEN_AI_OUTPUT_MESSAGES, _content([Message("assistant", text)]))


def _chat_span(engine: Engine, response: Response, max_tokens: int) -> Span:
    attributes: dict[str, Value] = {
        span_names.GEN_AI_OPERATION: "chat",
        span_names.GEN_AI_PROVIDER: engine.endpoint or "sangha",
        span_names.GEN_AI_MODEL: engine.name,
        span_names.GEN_AI_RESPONSE_MODEL: engine.name,
        span_names.GEN_AI_RESPONSE_ID: response.id,
        span_names.GEN_AI_MAX_TOKENS: max_tokens,
    }
    if response.conversation_id:
        attributes[span_names.GEN_AI_CONVERSATION_ID] = response.conversation_id
    return tracing.span(span_names.chat(engine.name), "client" if engine.endpoint else "internal", attributes)


def _content(messages: Sequence[Message]) -> str:
    """Return messages as the semantic conventions have them, in JSON."""
    parts: list[dict[str, Any]] = [
        {"role": message.role, "parts": [{"type": "text", "content": message.content}]} for message in messages
    ]
    return orjson.dumps(parts, default=str).decode()
