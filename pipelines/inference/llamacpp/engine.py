"""Run llama.cpp's server in the process, through xllamacpp.

It batches concurrent generations, caches each slot's prompt so that a conversation's next turn reads only what is new,
and applies the model's own chat template. Four of its properties shape this module:

- `handle_chat_completions` blocks and calls back at each chunk. Exceptions of the callback are lost, so ours does two
  things that can't fail: it puts the chunk into a queue, and returns whether to stop. `chunks.py` does the rest.
- It stops only between two batches, when a callback returns True. In an answer a batch is one token. In a prompt it
  is PROMPT_BATCH tokens: the batch in progress, and the one begun during the callback, can't be interrupted.
- A trailing assistant message is continued, and with `stream` only new text is returned.
- Errors are chunks with the key `error`, or are raised as ValueError and RuntimeError.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import orjson

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    Message,
    OutputFormat,
    PromptRead,
    ReasoningToken,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.inference.json_schema import check_output_format
from pipelines.inference.llamacpp.answer_parts import AnswerParts
from pipelines.inference.llamacpp.assistant_prefix import assistant_prefix
from pipelines.inference.llamacpp.chunks import ChunkQueue, error_from, read_tokens
from pipelines.inference.llamacpp.context_size import context_of
from pipelines.inference.llamacpp.devices import gpu_memory
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.isolated_slots import IsolatedSlots, Messages
from pipelines.inference.llamacpp.loopback import LoopbackClient
from pipelines.inference.llamacpp.output_parser import OutputParser
from pipelines.inference.llamacpp.partial_answer import PartialAnswer
from pipelines.inference.llamacpp.reasoning import reasoning_marks
from pipelines.inference.llamacpp.sampling_parameters import sampling_parameters
from pipelines.inference.llamacpp.server import server_parameters, start_server
from pipelines.inference.llamacpp.token_bound import TokenBound
from pipelines.inference.llamacpp.tool_prompt import render_messages
from pipelines.inference.llamacpp.tool_template import ToolTemplate, tool_template
from pipelines.inference.machine import usable_cores, usable_memory
from pipelines.inference.registry import model_name

#: Prompt tokens per batch on a CPU. Every other slot's next token waits for one batch, and a stop for up to two.
#: 64 take 0.2 s where 512 take 1.2 s, and read 13 % slower; 16 take 0.08 s, 50 % slower. (SmolLM2-135M on 2 cores.)
PROMPT_BATCH = 64

#: Share of the machine's memory for prompts that have left their slot and may be continued by a later turn.
PROMPT_CACHE_SHARE = 1 / 8


def load_llamacpp(settings: Settings) -> "LlamaCppEngine":
    """Load the model. Raises ConfigurationError with one line when it is missing or llama.cpp rejects it."""
    file = engine_file(settings)
    params, memory = server_parameters(file, threads=usable_cores()), gpu_memory()
    params.model_alias = {model_name(settings)}
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * context_of(settings, memory)  # divided evenly: no slot can take another's share
    isolated = settings.prompt_cache == "account"
    params.cache_ram_mib = 0 if isolated else int(usable_memory() * PROMPT_CACHE_SHARE) >> 20
    if memory is None:
        params.n_batch = params.n_ubatch = max(PROMPT_BATCH, settings.slots)
    server = start_server(params, "model")
    loopback = LoopbackClient(server.listening_address, params.api_keys[0])
    bound = TokenBound(file, loopback)
    return LlamaCppEngine(server, loopback, bound, model_name(settings), settings.slots, isolated=isolated)


class LlamaCppEngine:
    """Generates text with llama.cpp. See Engine."""

    continues = True
    endpoint = ""
    counts_exactly = True

    def __init__(
        self,
        server: Any,
        loopback: LoopbackClient,
        token_bound: TokenBound,
        name: str,
        slots: int,
        *,
        isolated: bool = False,
    ) -> None:
        self.name = name
        self.slots = slots
        # The server limits a slot to the context that the model was trained for.
        self.context: int = loopback.request("GET", "/props")["default_generation_settings"]["n_ctx"]
        self._server = server
        self._loopback = loopback
        self._token_bound = token_bound
        self._assistant_prefix = assistant_prefix(loopback)
        self._marks = reasoning_marks(loopback)
        self.reasons = self._marks is not None
        self._tool_template = tool_template(loopback)
        # One thread a slot: further generations wait here, where cancelling them has no effect on llama.cpp.
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._running: set[ChunkQueue] = set()
        self._isolated_slots = IsolatedSlots(slots) if isolated else None

    @property
    def tool_template(self) -> ToolTemplate:
        """What the model's chat template does with tools."""
        return self._tool_template

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. Exact; takes under 1 ms for a short prompt."""
        messages = render_messages(prompt, output_format, self._tool_template)
        body = {"messages": messages, **self._tool_template.parameters(output_format)}
        answer = self._loopback.request("POST", "/v1/chat/completions/input_tokens", body)
        if "error" in answer:
            raise error_from(answer["error"])
        tokens: int = answer["input_tokens"]
        return tokens

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. Takes milliseconds for megabytes, which take `count` seconds."""
        return self._token_bound.min_tokens(render_messages(prompt, output_format, self._tool_template))

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
        """See Engine. While a prompt is read, freeing the slot takes up to two batches; Finish comes at once."""
        output_format = self._tool_template.limited(output_format)
        partial = PartialAnswer(prompt, output_format, prefix, calls, reasoning, self._tool_template)
        if sampling.max_output_tokens < 1:  # llama.cpp would generate one token
            yield Finish("length", self.count(prompt, output_format), 0, 0)
        elif partial.has_all_calls:
            yield Finish("stop", self.count(prompt, output_format), 0, 0)
        elif not partial.is_constrained and not _parses_stop_texts(sampling):
            yield from self._generate_text(partial, sampling, cancelled, cache_owner)
        else:
            check_output_format(output_format)
            parser = OutputParser(output_format, sampling, prefix, calls, self._tool_template.markup)
            # Closed at once also on an exception: its traceback would keep the iterator, and so the slot, alive.
            outputs = self._generate_text(
                partial, replace(sampling, stop=()), lambda: parser.done or cancelled(), cache_owner
            )
            with closing(outputs):
                yield from parser.parse(outputs)

    def close(self) -> None:
        """Cancel every generation, wait for them to end, and free the memory."""
        for chunks in list(self._running):
            chunks.stop_requested = True
        self._threads.shutdown(cancel_futures=True)
        self._server = None

    def _generate_text(
        self, partial: PartialAnswer, sampling: Sampling, cancelled: Callable[[], bool], cache_owner: str | None
    ) -> Generator[PromptRead | ReasoningToken | Token | Finish, None, None]:
        """Yield the model's output, in the parts that `AnswerParts` describes."""
        parts = AnswerParts(sampling)
        while (part := parts.next_part()) is not None:
            for output in self._continue(partial, part, cancelled, cache_owner):
                if isinstance(output, PromptRead):
                    if parts.is_first:
                        yield output
                    continue
                parts.add(output)
                if not isinstance(output, Finish):
                    partial = partial.followed_by(output)
                    yield _without_alternatives(output) if sampling.top_logprobs == 0 else output
        yield parts.finish()

    def _continue(
        self, partial: PartialAnswer, sampling: Sampling, cancelled: Callable[[], bool], cache_owner: str | None
    ) -> Iterator[PromptRead | ReasoningToken | Token | Finish]:
        """Yield the model's output. llama.cpp's count of the prompt's tokens is right only without a partial answer."""
        body = self._request_body(partial, sampling)
        if not partial.has_output:
            yield from self._run_request(body, cancelled, None, cache_owner)
            return
        tokens = self.count(partial.prompt, partial.output_format)
        try:
            yield from self._run_request(body, cancelled, tokens, cache_owner)
        except PermanentFailure as error:
            if error.code != "context_length_exceeded" or tokens >= self.context:
                raise
            yield Finish("length", tokens, 0, 0)  # the partial answer fills the context

    def _run_request(
        self,
        body: Mapping[str, Any],
        cancelled: Callable[[], bool],
        prompt_tokens: int | None,
        cache_owner: str | None,
    ) -> Iterator[PromptRead | ReasoningToken | Token | Finish]:
        chunks = ChunkQueue()
        try:
            running = self._threads.submit(self._run, body, chunks, cache_owner)
        except RuntimeError as error:
            raise EngineError("The engine is closed") from error
        self._running.add(chunks)
        try:
            yield from read_tokens(chunks, cancelled, prompt_tokens)
        finally:
            chunks.stop_requested = True
            self._running.discard(chunks)
            running.cancel()

    def _request_body(self, partial: PartialAnswer, sampling: Sampling) -> dict[str, Any]:
        reasons = self._marks is not None and (self._marks.in_grammar or not partial.is_constrained)
        body = {
            **partial.prompt_parameters(),
            **sampling_parameters(sampling),
            "stop": [text for text in sampling.stop if text] or None,
            **partial.grammar_parameters(self._assistant_prefix, self._marks),
            "stream": True,
            "timings_per_token": True,  # adds the number of tokens to each chunk
            "return_progress": True,  # adds the prompt's tokens, and calls back between its batches
            "reasoning_format": "deepseek" if reasons else "none",  # apart from the text, or as a part of it
        }
        return {name: value for name, value in body.items() if value is not None}

    def _run(self, body: Mapping[str, Any], chunks: ChunkQueue, cache_owner: str | None) -> None:
        """Generate until the end or a stop. Runs in a slot's thread."""
        try:
            with self._slot_parameters(cache_owner, body["messages"], chunks) as parameters:
                if not chunks.stop_requested:
                    self._server.handle_chat_completions(orjson.dumps({**body, **parameters}), chunks.on_chunk)
            chunks.queue.put(None)
        except Exception as error:  # noqa: BLE001  raised in the thread that reads
            chunks.queue.put(error)

    @contextmanager
    def _slot_parameters(
        self, cache_owner: str | None, messages: Messages, chunks: ChunkQueue
    ) -> Iterator[Mapping[str, Any]]:
        """Choose the slot, unless llama.cpp may choose any."""
        if self._isolated_slots is None:
            yield {}
            return
        with self._isolated_slots.take(cache_owner, messages, lambda: chunks.has_begun) as slot:
            yield slot.parameters


def _parses_stop_texts(sampling: Sampling) -> bool:
    """Return whether our parser, instead of llama.cpp, looks for the stop texts of a plain text answer.

    llama.cpp drops the log probabilities of text that it holds back, and loses that text if an answer is continued.
    """
    return any(sampling.stop) and (sampling.top_logprobs is not None or sampling.min_tokens > 0)


def _without_alternatives(output: ReasoningToken | Token) -> ReasoningToken | Token:
    if isinstance(output, ReasoningToken):
        return output
    return replace(output, logprobs=tuple(replace(entry, top=()) for entry in output.logprobs))
