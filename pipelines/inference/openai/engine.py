"""Generate text with a model of an OpenAI-compatible endpoint, through Chat Completions or Responses.

Most endpoints read an assistant message as a complete one: a turn whose worker crashes begins its answer again, and its
stream reports that. Those that continue one (`SANGHA_UPSTREAM_NAME_CONTINUES`) go on with a text.
"""

import copy
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import orjson

from models.platform.upstreams import Upstream
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    Message,
    OutputFormat,
    Sampling,
    ToolCall,
)
from pipelines.inference.openai.cancellable_http import ReadCancelled
from pipelines.inference.openai.completion_reader import AnswerReader, CompletionReader
from pipelines.inference.openai.completions import cache_isolation, continuation, request_body
from pipelines.inference.openai.endpoint_client import EndpointClient
from pipelines.inference.openai.responses_reader import ResponsesReader
from pipelines.inference.openai.responses_request import responses_body
from pipelines.inference.openai.stop_texts import until_stop

#: The paths of the two APIs.
PATHS = {"chat": "/chat/completions", "responses": "/responses"}

#: Tokens of a probe's answer: the least that OpenAI's Responses allows is 16.
PROBE_TOKENS = {"chat": 1, "responses": 16}

#: Tokens of the context of a probe.
PROBE_CONTEXT = 256


class OpenAIEngine:
    """Generates text with a model of an upstream. See Engine.

    client   connections that several models of the endpoint share; None: its own
    context  tokens of prompt and answer together
    """

    reasons = True
    counts_exactly = False

    def __init__(
        self,
        upstream: Upstream,
        model: str,
        *,
        slots: int,
        context: int,
        client: EndpointClient | None = None,
        isolates_prompts: bool = False,
    ) -> None:
        self.name, self.endpoint = model, upstream.name
        self.slots, self.context = slots, context
        self.continues = upstream.continues
        self._api = upstream.api
        self._client = client or EndpointClient(upstream, slots)
        self._isolates_prompts = isolates_prompts
        self._job_id, self._is_repeat = "", False

    def for_job(self, job_id: str, *, is_repeat: bool) -> "OpenAIEngine":
        """Return an engine that sends the requests of one job: equal ones have equal idempotency keys.

        is_repeat  whether an earlier attempt may have sent the next request
        """
        engine = copy.copy(self)
        engine._job_id, engine._is_repeat = job_id, is_repeat
        return engine

    def can_continue(self, output_format: OutputFormat, text: str, reasoning: str) -> bool:
        """Return whether an answer that begins so is continued.

        Endpoints continue no reasoning, and their grammars would begin at the continuation.
        """
        is_free = output_format.schema is None and not output_format.must_call_tool
        return self.continues and is_free and bool(text or not reasoning)

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """Estimate the tokens, for endpoints don't count them: four ASCII characters, or one other, are a token."""
        texts = [text for message in prompt for text in (message.content, *(call.arguments for call in message.calls))]
        texts += [orjson.dumps([tool.description, tool.parameters]).decode() for tool in output_format.callable_tools]
        frames = 4 * (len(prompt) + len(output_format.callable_tools))  # roles and names
        return frames + sum(_tokens(text) for text in texts)

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. The vocabulary of an endpoint is not known, and `count` is quick."""
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
        """See Engine. Cancelling closes the connection, which makes endpoints stop generating.

        After a call nothing is continued: the answer ends with the calls that it has.
        """
        tokens = self.count(prompt, output_format)
        if sampling.max_output_tokens < 1 or calls:
            yield Finish("stop" if calls else "length", tokens, 0, 0)
            return
        prefix = prefix if self.can_continue(output_format, prefix, reasoning) else ""
        if self._api == "responses":
            reader: AnswerReader = ResponsesReader(output_format)
            body, stops = responses_body(self.name, prompt, sampling, output_format), sampling.stop
        else:
            reader = CompletionReader(output_format)
            body, stops = request_body(self.name, prompt, sampling, output_format, self._client.host), ()
        if prefix:
            body |= continuation(body["messages"], Message("assistant", prefix, reasoning=reasoning))
        if self._isolates_prompts:
            body |= cache_isolation(self._client.host, cache_owner)
        with closing(self._outputs(body, reader, cancelled, tokens)) as outputs:
            answer = until_stop(outputs, stops, lambda: reader.stopped_finish(tokens)) if stops else outputs
            yield from _without_prefix(answer, _tokens(prefix)) if prefix else answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _outputs(
        self, body: dict[str, Any], reader: AnswerReader, cancelled: Callable[[], bool], prompt_tokens: int
    ) -> Generator[EngineOutput, None, None]:
        """Send a request and yield what the endpoint generates, and the end."""
        data = orjson.dumps(body)
        request = self._client.post(PATHS[self._api], data, self._idempotency_key(data), is_repeat=self._is_repeat)
        try:
            with (
                self._client.slot(cancelled),
                closing(self._client.events(request, lambda: reader.done, cancelled)) as events,
            ):
                for event in events:
                    yield from reader.add(event)
        except ReadCancelled:
            yield reader.cancelled_finish(prompt_tokens)
            return
        yield from reader.finish(prompt_tokens)

    def _idempotency_key(self, body: bytes) -> str:
        """Return a key for an endpoint that knows the header: equal for the same request of a job.

        The body has the conversation, the outputs of earlier steps and the text to continue. So each step of a job, and
        each part of an answer, has a key of its own.
        """
        if not self._job_id:
            return str(uuid4())
        return blake2b(self._job_id.encode() + b"\n" + body, digest_size=16).hexdigest()


def probe(upstream: Upstream, model: str, timeout: float = 10.0) -> str:
    """Generate one token and report how long that took. Raises EngineError and PermanentFailure."""
    start = time.monotonic()
    engine = OpenAIEngine(upstream, model, slots=1, context=PROBE_CONTEXT)
    prompt, sampling = [Message("user", "Hello.")], Sampling(PROBE_TOKENS[upstream.api])
    with closing(engine):
        outputs = engine.generate(
            prompt, prefix="", sampling=sampling, cancelled=lambda: time.monotonic() - start > timeout
        )
        *_, finish = outputs
    seconds = time.monotonic() - start
    if isinstance(finish, Finish) and finish.reason == "cancelled":
        raise EngineError(f"{upstream.url} did not generate a token of {model} within {timeout:g} s")
    return f"{model} at {upstream.url} responds in {seconds:.1f} s"


def _without_prefix(outputs: Iterator[EngineOutput], prefix_tokens: int) -> Iterator[EngineOutput]:
    """Subtract the continued text from the tokens of the prompt: the endpoint counts it there."""
    for output in outputs:
        if isinstance(output, Finish) and prefix_tokens and output.prompt_tokens:
            tokens = max(1, output.prompt_tokens - prefix_tokens)
            yield replace(output, prompt_tokens=tokens, cached_tokens=min(output.cached_tokens, tokens))
        else:
            yield output


def _tokens(text: str) -> int:
    if text.isascii():
        return -(-len(text) // 4)
    ascii_ = sum(character.isascii() for character in text)
    return -(-ascii_ // 4) + len(text) - ascii_
