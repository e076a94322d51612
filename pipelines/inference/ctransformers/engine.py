"""Generate text with ctransformers, a slot at a time in a copy of the model.

The library evaluates tokens and returns logits. Everything else is ours: chat template, sampling, grammars, stop texts.
"""

import codecs
import logging
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing

import numpy as np

from models.platform.errors import PermanentFailure
from models.platform.settings import Settings
from pipelines.inference.ctransformers.chat_template import LLAMA2, ChatTemplate
from pipelines.inference.ctransformers.grammar import Constraint, Grammars
from pipelines.inference.ctransformers.instance import PROMPT_BATCH, Instance, load_instances
from pipelines.inference.ctransformers.model_file import check_file
from pipelines.inference.ctransformers.sampler import Logits, choose
from pipelines.inference.ctransformers.slots import POLL_INTERVAL, Slots
from pipelines.inference.ctransformers.vocabulary import Vocabulary
from pipelines.inference.engine import (
    PLAIN_TEXT,
    EngineError,
    EngineOutput,
    Finish,
    GenerationEnd,
    Message,
    OutputFormat,
    Sampling,
    Token,
    ToolCall,
)
from pipelines.inference.json_schema import check_output_format
from pipelines.inference.llamacpp.context_size import context_of
from pipelines.inference.llamacpp.gguf_metadata import read_contents
from pipelines.inference.llamacpp.output_parser import OutputParser
from pipelines.inference.llamacpp.partial_answer import PartialAnswer
from pipelines.inference.llamacpp.tool_prompt import render_messages
from pipelines.inference.machine import usable_cores
from pipelines.inference.registry import model_name

log = logging.getLogger(__name__)


def load_ctransformers(settings: Settings) -> "CTransformersEngine":
    """Load the model. Raises ConfigurationError with one line where it is missing or the library cannot load it."""
    file, context = check_file(settings), context_of(settings)
    instances = load_instances(file, settings.slots, context, max(1, usable_cores() // settings.slots))
    log.info("ctransformers has loaded %s: %s slots of %s tokens", file.name, settings.slots, context)
    metadata = read_contents(file).metadata
    vocabulary = Vocabulary(metadata, instances[0].encode)
    source = metadata.get("tokenizer.chat_template", b"").decode() or LLAMA2
    template = ChatTemplate(source, vocabulary.text(vocabulary.bos), vocabulary.text(vocabulary.eos))
    isolated = settings.prompt_cache == "account"
    return CTransformersEngine(model_name(settings), instances, vocabulary, template, context, isolated=isolated)


class CTransformersEngine:
    """Generates text with ctransformers. See Engine."""

    continues = True
    endpoint = ""
    counts_exactly = True
    reasons = False

    def __init__(
        self,
        name: str,
        instances: Sequence[Instance],
        vocabulary: Vocabulary,
        template: ChatTemplate,
        context: int,
        *,
        isolated: bool = False,
    ) -> None:
        self.name, self.slots, self.context = name, len(instances), context
        self._instances, self._slots = instances, Slots(instances, isolated=isolated)
        self._vocabulary, self._template, self._grammars = vocabulary, template, Grammars(vocabulary)
        self._closed = False

    def count(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. Exact."""
        return len(self._vocabulary.tokens(self._template.render(render_messages(prompt, output_format))))

    def min_tokens(self, prompt: Sequence[Message], output_format: OutputFormat = PLAIN_TEXT) -> int:
        """See Engine. A token covers at most as many characters as the longest one has bytes."""
        messages = render_messages(prompt, output_format)
        # Templates may leave out blanks around messages.
        return sum(len(message["content"].strip()) for message in messages) // self._vocabulary.longest

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
        """See Engine. Freeing the slot takes up to a batch while a prompt is read; Finish comes at once."""
        partial = PartialAnswer(prompt, output_format, prefix, calls)
        prompt_tokens = self.count(prompt, output_format)
        if sampling.max_output_tokens < 1 or partial.has_all_calls:
            yield Finish("length" if sampling.max_output_tokens < 1 else "stop", prompt_tokens, 0, 0)
            return
        if partial.is_constrained:
            check_output_format(output_format)
        parser = OutputParser(output_format, sampling, prefix, calls)
        generation = Generation(self._vocabulary, sampling, self._grammars.constraint(partial), self.context)

        def stops() -> bool:
            return parser.done or self._closed or cancelled()

        outputs = self._run(generation, partial, prompt_tokens, stops, cache_owner)
        with closing(outputs):
            yield from parser.parse(outputs)

    def close(self) -> None:
        """Cancel every generation and free the memory."""
        self._closed = True
        for instance in self._instances:
            instance.close()

    def _run(
        self,
        generation: "Generation",
        partial: PartialAnswer,
        prompt_tokens: int,
        stops: Callable[[], bool],
        owner: str | None,
    ) -> Generator[Token | Finish, None, None]:
        rendered = self._template.render(partial.messages())
        tokens = self._vocabulary.tokens(rendered)
        if prompt_tokens >= self.context:
            raise PermanentFailure(
                f"The prompt has {prompt_tokens} tokens, which exceeds the available context size of {self.context}",
                code="context_length_exceeded",
            )
        if len(tokens) >= self.context:  # the partial answer fills the context
            yield Finish("length", prompt_tokens, 0, 0)
            return
        if self._closed:
            raise EngineError("The engine is closed")
        instance = self._slots.take(tokens, owner, stops)
        if instance is None:
            yield Finish("cancelled", 0, 0, 0)
            return
        cached = min(instance.shared(tokens), prompt_tokens)
        begins = not partial.has_output and ChatTemplate.blank(rendered) == " "
        reader = Reader(instance, stops)
        try:
            yield from generation.tokens(reader, tokens, begins=begins)
        finally:
            self._slots.give_back(instance, reader.running)
        yield Finish(generation.reason, prompt_tokens, cached, generation.generated)


class Reader:
    """Reads tokens in the slot's thread, and looks every few milliseconds whether to stop."""

    def __init__(self, instance: Instance, stops: Callable[[], bool]) -> None:
        self.running: Future[Logits] | None = None
        self._instance, self._stops = instance, stops

    def read_prompt(self, tokens: Sequence[int]) -> Logits | None:
        """Read what the slot has not read yet; returns the logits of the next token, or None once it is stopped."""
        logits, shared = None, self._instance.shared(tokens)
        for position in range(shared, len(tokens), PROMPT_BATCH):
            logits = self.read(tokens[position : position + PROMPT_BATCH], position)
            if logits is None:
                return None
        return logits

    def read(self, tokens: Sequence[int], position: int) -> Logits | None:
        """Read tokens; returns the logits of the next one, or None once it is stopped."""
        if self._stops():
            return None
        try:
            self.running = self._instance.thread.submit(self._instance.read, tokens, position)
        except RuntimeError:  # the engine has been closed meanwhile
            return None
        while True:
            try:
                return self.running.result(POLL_INTERVAL)
            except TimeoutError:
                pass
            if self._stops():
                return None


class Generation:
    """One answer: why it ended, and the tokens generated."""

    def __init__(self, vocabulary: Vocabulary, sampling: Sampling, constraint: Constraint | None, context: int) -> None:
        self.reason: GenerationEnd = "cancelled"
        self.generated = 0
        self._vocabulary, self._sampling, self._constraint, self._context = vocabulary, sampling, constraint, context
        self._seed = secrets.randbits(63) if sampling.seed is None else sampling.seed & (2**64 - 1)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def tokens(self, reader: Reader, prompt: Sequence[int], *, begins: bool) -> Iterator[Token]:
        """Yield the answer's text. `begins`: the model writes a blank first, which separates it from the prompt."""
        context, held = list(prompt), 0
        logits = reader.read_prompt(context)
        while logits is not None:
            token = self._choose(logits, context)
            if token is None:
                return
            context.append(token)
            self.generated, held = self.generated + 1, held + 1
            text = self._decode(self._vocabulary.data[token])
            if begins and text:
                text, begins = text.removeprefix(" "), False
            if text:
                yield Token(text, held)
                held = 0
            if self._is_full(context):
                self.reason = "length"
                return
            logits = reader.read(context[-1:], len(context) - 1)

    def _choose(self, logits: Logits, context: Sequence[int]) -> int | None:
        """Return the next token; None where the answer ends."""
        if self._constraint is not None:
            if self._constraint.is_complete:
                self.reason = "stop"
                return None
            logits = np.where(self._constraint.mask(), logits, -np.inf).astype(np.float32)
        allowed = self._without_end(logits)
        token = choose(logits if allowed is None else allowed, self._sampling, context, self._seed)
        if token == self._vocabulary.eos:
            self.reason = "stop"
            return None
        if self._constraint is not None:
            self._constraint.add(token)
        return token

    def _without_end(self, logits: Logits) -> Logits | None:
        """Return the logits without those of the end, where it is not allowed and something else is."""
        if not (self._sampling.ignore_eos or self.generated < self._sampling.min_tokens):
            return None
        others = logits.copy()
        others[self._vocabulary.eos] = -np.inf
        return others if np.isfinite(others).any() else None

    def _is_full(self, context: Sequence[int]) -> bool:
        return self.generated >= self._sampling.max_output_tokens or len(context) >= self._context
