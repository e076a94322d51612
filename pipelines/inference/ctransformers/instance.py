"""One copy of the model with its own context. Copies share the weights, which are mapped from the file."""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from ctransformers.llm import LLM, Config

from models.platform.errors import ConfigurationError
from pipelines.inference.ctransformers.sampler import Logits
from pipelines.inference.engine import EngineError

#: Prompt tokens per batch: a stop waits for the one in progress.
PROMPT_BATCH = 32


class Instance:
    """A slot: one generation at a time reads tokens in its thread.

    tokens  what it has read
    owner   whose prompt that is, where prompts are not shared
    """

    def __init__(self, file: Path, context: int, threads: int) -> None:
        config = Config(context_length=context, threads=threads, batch_size=PROMPT_BATCH, mmap=True)
        try:
            self._llm: Any = LLM(str(file), model_type="gguf", config=config)
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigurationError(f"SANGHA_MODEL: ctransformers cannot load {file}: {error}") from error
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="slot")
        self.tokens: list[int] = []
        self.owner: str | None = None
        self._threads, self._encoding = threads, Lock()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Not by the library's own `tokenize`, which reserves one number for each character although a character can have
        several tokens, and so writes beyond the end of its memory.
        """
        data = text.replace("\0", "\ufffd").encode("utf-8", "replace")
        buffer = (ctypes.c_int * (len(data) + 8))()
        with self._encoding:
            if self._llm is None:
                raise EngineError("The engine is closed")
            return list(buffer[: self._llm.ctransformers_llm_tokenize(data, False, buffer)])

    def shared(self, tokens: Sequence[int]) -> int:
        """Return how many tokens of a prompt it has read. The last one is always read again, for its logits."""
        size = min(len(self.tokens), len(tokens) - 1)
        return next((index for index in range(size) if self.tokens[index] != tokens[index]), size)

    def read(self, tokens: Sequence[int], position: int) -> Logits:
        """Read tokens after the first `position` ones; returns the logits of the next one. Raises EngineError."""
        del self.tokens[position:]
        array = (ctypes.c_int * len(tokens))(*tokens)
        if not self._llm.ctransformers_llm_batch_eval(array, len(tokens), position, PROMPT_BATCH, self._threads):
            raise EngineError("ctransformers could not evaluate the tokens")
        self.tokens += tokens
        size = self._llm.ctransformers_llm_logits_size()
        return np.ctypeslib.as_array(self._llm.ctransformers_llm_logits_data(), shape=(size,)).copy()

    def close(self) -> None:
        """Wait for what is being read, and free the memory."""
        self.thread.shutdown()
        with self._encoding:
            self._llm = None


def load_instances(file: Path, number: int, context: int, threads: int) -> list[Instance]:
    """Load copies of the model, which take memory for their contexts only."""
    return [Instance(file, context, threads) for _ in range(number)]
