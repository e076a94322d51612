"""The default engine: llama.cpp's server in the process, through xllamacpp.

It batches what runs at once, keeps each slot's prompt so that a conversation's next turn reads only what is new, and
applies the model's own chat template. Four of its habits shape this module:

- `handle_chat_completions` blocks and calls back at each chunk. What a callback raises is lost, so ours does two
  things that can't fail: it puts the chunk into a queue, and says whether to stop. `chunks.py` does the rest.
- It stops only between two batches, when a callback returns True. In an answer a batch is one token. In a prompt it
  is READING_BATCH tokens: the batch under way, and the one begun while the callback is heard, can't be interrupted.
- A trailing assistant message is continued, and with `stream` only new text comes back.
- Errors come as chunks with the key `error`, or are raised as ValueError and RuntimeError.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import orjson
import xllamacpp

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    Message,
    OutputFormat,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.inference.json_schema import check_output_format
from pipelines.inference.llamacpp.assistant_prefix import assistant_prefix
from pipelines.inference.llamacpp.chunks import ChunkQueue, error_from, read_tokens
from pipelines.inference.llamacpp.gguf_files import engine_file
from pipelines.inference.llamacpp.loopback import LoopbackClient
from pipelines.inference.llamacpp.output_parser import OutputParser
from pipelines.inference.llamacpp.partial_answer import PartialAnswer
from pipelines.inference.llamacpp.server import server_parameters, start_server
from pipelines.inference.llamacpp.tool_prompt import render_messages
from pipelines.inference.machine import usable_cores, usable_memory
from pipelines.inference.registry import model_name

#: Prompt tokens read at a time on a CPU. Every other slot's next token waits for one batch, and a stop for up to two.
#: 64 take 0.2 s where 512 take 1.2 s, and read 13 % slower; 16 take 0.08 s, 50 % slower. (SmolLM2-135M on 2 cores.)
PROMPT_BATCH = 64

#: Prompts that left their slot stay in memory for their next turn, up to this share of the machine's.
PROMPT_CACHE_SHARE = 1 / 8


def load_llamacpp(settings: Settings) -> "LlamaCppEngine":
    """Load the model. Raises ConfigurationError with one line when there is none or llama.cpp refuses it."""
    params = server_parameters(engine_file(settings), threads=usable_cores())
    params.model_alias = {model_name(settings)}
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context  # divided evenly, so that no slot can starve another
    params.cache_ram_mib = int(usable_memory() * PROMPT_CACHE_SHARE) >> 20
    if _only_cpu():
        params.n_batch = params.n_ubatch = max(PROMPT_BATCH, settings.slots)
    server = start_server(params, "model")
    return LlamaCppEngine(
        server, LoopbackClient(server.listening_address, params.api_keys[0]), model_name(settings), settings.slots
    )


class LlamaCppEngine:
    """The engine of `SANGHA_ENGINE=llamacpp`."""

    continues = True

    def __init__(self, server: Any, loopback: LoopbackClient, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        # The server caps a slot at what the model was trained for.
        self.context: int = loopback.request("GET", "/props")["default_generation_settings"]["n_ctx"]
        self._server = server
        self._loopback = loopback
        self._opening = assistant_prefix(loopback)
        # As many threads as slots: what must wait waits here, where it can be taken back without a trace.
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._running: set[ChunkQueue] = set()

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. Exact; under 1 ms for a short prompt."""
        body = {"messages": render_messages(prompt, output_format)}
        answer = self._loopback.request("POST", "/v1/chat/completions/input_tokens", body)
        if "error" in answer:
            raise error_from(answer["error"])
        tokens: int = answer["input_tokens"]
        return tokens

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
        """See Engine. While a prompt is being read a stop waits for the batch under way, though Finish doesn't."""
        begun = PartialAnswer(prompt, output_format, prefix, calls)
        if sampling.max_output_tokens < 1:  # llama.cpp would generate one token for nothing
            yield Finish("length", self.count(prompt, output_format), 0, 0)
        elif begun.has_all_calls:
            yield Finish("stop", self.count(prompt, output_format), 0, 0)
        elif not begun.is_constrained:
            yield from self._go_on(begun, sampling, cancelled)
        else:
            check_output_format(output_format)
            splitter = OutputParser(output_format, sampling, prefix, calls)
            # Closed here and now, whatever is raised: else the slot would go on as long as the traceback is held.
            with closing(self._go_on(begun, sampling, lambda: splitter.done or cancelled())) as written:
                yield from splitter.parse(written)

    def close(self) -> None:
        """Stop every generation, wait for them, and give the memory back."""
        for chunks in list(self._running):
            chunks.stop_requested = True
        self._threads.shutdown(cancel_futures=True)
        self._server = None

    def _go_on(
        self, begun: PartialAnswer, sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Generator[Token | Finish, None, None]:
        """What the model writes. Its own figure of the prompt's tokens holds only where nothing is answered yet."""
        if not begun.has_output:
            yield from self._answer(self._request(begun, sampling), cancelled, None)
            return
        tokens = self.count(begun.prompt, begun.output_format)
        try:
            yield from self._answer(self._request(begun, sampling), cancelled, tokens)
        except PermanentFailure as error:
            if error.code != "context_length_exceeded" or tokens >= self.context:
                raise
            yield Finish("length", tokens, 0, 0)  # the answer before had filled the slot to its end

    def _answer(
        self, request: bytes, cancelled: Callable[[], bool], prompt_tokens: int | None
    ) -> Iterator[Token | Finish]:
        chunks = ChunkQueue()
        try:
            running = self._threads.submit(self._run, request, chunks)
        except RuntimeError as error:
            raise EngineError("the engine is closed") from error
        self._running.add(chunks)
        try:
            yield from read_tokens(chunks, cancelled, prompt_tokens)
        finally:
            chunks.stop_requested = True
            self._running.discard(chunks)
            running.cancel()

    def _request(self, begun: PartialAnswer, sampling: Sampling) -> bytes:
        body = {
            "messages": begun.messages(),
            "max_tokens": sampling.max_output_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            # A stop text inside a call would break it: there the splitter looks for them, in the text alone.
            "stop": None if begun.output_format.callable_tools else [text for text in sampling.stop if text] or None,
            **begun.grammar_parameters(self._opening),
            "stream": True,
            "timings_per_token": True,  # tells how many tokens a chunk carries
            "return_progress": True,  # tells the prompt's tokens, and calls back between its batches
            "reasoning_format": "none",  # thoughts are text like any other
        }
        return orjson.dumps({name: value for name, value in body.items() if value is not None})

    def _run(self, request: bytes, chunks: ChunkQueue) -> None:
        """In a slot's thread: generate until the end or a stop."""
        try:
            if not chunks.stop_requested:
                self._server.handle_chat_completions(request, chunks.on_chunk)
            chunks.queue.put(None)
        except Exception as error:  # noqa: BLE001  it belongs to the thread that reads
            chunks.queue.put(error)


def _only_cpu() -> bool:
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return all(device["type"] == cpu for device in xllamacpp.get_device_info())
