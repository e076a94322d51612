"""How much of a prompt is from earlier turns of its thread: the cached tokens that its account may learn of.

An engine's cache is shared by all accounts, and the number of cached tokens shows how much of a prompt anybody has sent
before. A guess that follows an own beginning would be confirmed token by token. So no more is reported than what this
process itself has generated from in the same thread, and nothing where less is cached: then the thread's own prompt has
left the cache, and the number is how much of it another account has sent.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from threading import Lock

from models.platform.errors import SanghaError
from pipelines.inference.engine import Engine, Finish, Message, OutputFormat, PromptRead

#: Threads whose last prompt is kept, about 20 bytes a message.
MAX_THREADS = 4096

#: Tokens that a count may have beyond the messages: the beginning of an answer, as the chat template writes it.
ANSWER_HEADER_TOKENS = 8

#: Tokens by which an endpoint may report less than it has cached: it counts in blocks.
BLOCK_TOKENS = 128

DIGEST_SIZE = 16


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt that was read: a digest of each beginning, and how many messages and tokens the engine has read."""

    digests: Sequence[bytes]
    messages: int
    tokens: int


class OwnPrompts:
    """The last prompt of each thread in this process. Many threads may use it at once."""

    def __init__(self, engine: Engine, max_threads: int = MAX_THREADS) -> None:
        self._engine = engine
        self._max_threads = max_threads
        self._prompts: OrderedDict[str, _Prompt] = OrderedDict()
        self._lock = Lock()

    def cached_tokens(
        self, thread: str, prompt: Sequence[Message], output_format: OutputFormat, read: PromptRead | Finish
    ) -> int:
        """Return how many cached tokens may be reported of a generation."""
        if not read.cached_tokens:
            return 0
        with self._lock:
            earlier = self._prompts.get(thread)
        shared = self._shared_tokens(earlier, prompt, output_format) if earlier else 0
        least = shared if self._engine.counts_exactly else shared - BLOCK_TOKENS + 1
        return min(read.cached_tokens, shared) if read.cached_tokens >= least else 0

    def record(
        self, thread: str, prompt: Sequence[Message], output_format: OutputFormat, answer: Message, finish: Finish
    ) -> None:
        """Record a prompt that was read to its end, and its answer."""
        digests = list(_digests([*prompt, answer], output_format))
        with self._lock:
            self._prompts[thread] = _Prompt(digests, len(prompt), finish.prompt_tokens)
            self._prompts.move_to_end(thread)
            if len(self._prompts) > self._max_threads:
                self._prompts.popitem(last=False)

    def _shared_tokens(self, earlier: _Prompt, prompt: Sequence[Message], output_format: OutputFormat) -> int:
        """Return a number of tokens that the prompt certainly shares with the earlier one."""
        pairs = zip(earlier.digests, _digests(prompt, output_format), strict=False)
        shared = sum(digest == own for digest, own in pairs)
        if self._engine.counts_exactly:
            tokens = self._count(prompt[:shared], output_format) if shared else 0
        else:  # only the endpoint's own count of a whole prompt is certain
            tokens = earlier.tokens if shared >= earlier.messages else 0
        return max(0, tokens - ANSWER_HEADER_TOKENS)

    def _count(self, prompt: Sequence[Message], output_format: OutputFormat) -> int:
        try:
            return self._engine.count(prompt, output_format)
        except SanghaError:  # some templates accept no beginning of a prompt
            return 0


def _digests(prompt: Sequence[Message], output_format: OutputFormat) -> Iterator[bytes]:
    """Yield a digest of each beginning of a prompt. The output format is described in its first message."""
    digest = _digest(repr(_prompt_parts(output_format)).encode())
    for message in prompt:
        message = replace(message, content=message.content.rstrip())  # as templates write it
        digest = _digest(digest + repr(message).encode("utf-8", "surrogatepass"))
        yield digest


def _prompt_parts(output_format: OutputFormat) -> tuple[object, ...]:
    template = sorted(output_format.template.items())
    return output_format.callable_tools, output_format.schema, output_format.effort, template


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_SIZE).digest()
