"""Bound the tokens of a prompt from below, in milliseconds: llama.cpp takes 15 s to count two megabytes of blanks.

A token covers at most as many bytes as the longest one of the vocabulary, and at most as many letters as the one with
the most letters. So a text has at least its bytes divided by the first and its letters divided by the second.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pipelines.inference.llamacpp.gguf_metadata import read_metadata
from pipelines.inference.llamacpp.loopback import LoopbackClient

log = logging.getLogger(__name__)

#: Characters of a prompt below which its tokens are counted in well under a second, so that no bound is needed.
SHORT = 64 * 1024

#: Bytes that are left out to count others: blanks; all of ASCII but letters and digits.
BLANKS = b"\t\n\v\f\r "
NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalnum())
CLASSES = (b"", BLANKS, NO_LETTERS)

#: Vocabularies whose tokens are the bytes of the text: byte-level BPE, and SentencePiece's BPE. Others normalise it.
BYTE_LEVEL, SENTENCE_PIECE = b"gpt2", b"llama"

MODEL, TOKENS, CLEANS = "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.remove_extra_whitespaces"

#: How a chat template writes the content of a role: as it is, without blanks around it, or in a way that is not known.
Rendering = Literal["whole", "stripped", "unknown"]

#: What templates of reasoning models remove from earlier answers ends here.
REASONING_END = "</think>"


@dataclass(frozen=True, slots=True)
class LongestTokens:
    """The most bytes of each of CLASSES in one token."""

    lengths: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Iterable[bytes]) -> "LongestTokens":
        """Measure a vocabulary."""
        lengths = [1] * len(CLASSES)
        for token in sorted(tokens, key=len, reverse=True):
            if len(token) <= min(lengths):
                break
            lengths = [max(most, _size(token, class_)) for most, class_ in zip(lengths, CLASSES, strict=True)]
        return cls(tuple(lengths))

    def min_tokens(self, texts: Sequence[bytes]) -> int:
        """Return a number of tokens that these texts have at least together."""
        sizes = (sum(_size(text, class_) for text in texts) for class_ in CLASSES)
        return max(size // most for size, most in zip(sizes, self.lengths, strict=True))


class TokenBound:
    """The bound of one model. It reads the vocabulary and the template at the first long prompt."""

    def __init__(self, model: Path, loopback: LoopbackClient) -> None:
        self._model = model
        self._loopback = loopback

    def min_tokens(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Return a number of tokens that rendered messages have at least; 0 where none is known."""
        if sum(len(message["content"]) for message in messages) < SHORT or self._longest is None:
            return 0
        return self._longest.min_tokens([self._kept(message).encode() for message in messages])

    @cached_property
    def _longest(self) -> LongestTokens | None:
        try:
            metadata = read_metadata(self._model, (MODEL, TOKENS, CLEANS))
        except (OSError, ValueError) as error:
            log.warning("Long prompts are counted completely: cannot read the vocabulary: %s", error)
            return None
        if metadata.get(CLEANS) or metadata.get(MODEL) not in (BYTE_LEVEL, SENTENCE_PIECE):
            return None
        # SentencePiece's character for a blank stays: a text may have it, too.
        tokens = metadata[TOKENS]
        return LongestTokens.of(map(_decode_byte_level, tokens) if metadata[MODEL] == BYTE_LEVEL else tokens)

    @cached_property
    def _renderings(self) -> dict[str, Rendering]:
        """How the template renders each role. One that rejects system messages is asked without."""
        for roles in (("system", "user", "assistant", "user"), ("user", "assistant", "user")):
            messages = [{"role": role, "content": f" \n{role} probe\n "} for role in roles]
            prompt = self._loopback.request("POST", "/apply-template", {"messages": messages}).get("prompt")
            if prompt is not None:
                return {message["role"]: _rendering(message["content"], prompt) for message in messages}
        return {}

    def _kept(self, message: Mapping[str, str]) -> str:
        """Return the part of a message that its rendering has in any case."""
        content, rendering = message["content"], self._renderings.get(message["role"], "unknown")
        if rendering == "unknown":
            return ""
        if message["role"] == "assistant":
            content = content.rpartition(REASONING_END)[2]
        return content if rendering == "whole" else content.strip()


def _rendering(content: str, prompt: str) -> Rendering:
    if content in prompt:
        return "whole"
    return "stripped" if content.strip() in prompt else "unknown"


def _size(text: bytes, left_out: bytes) -> int:
    return len(text.translate(None, left_out))


def _byte_level_alphabet() -> dict[str, int]:
    """Return the bytes by the characters that stand for them in vocabularies like GPT-2's (`bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [code for code in range(256) if code not in printable]
    return {chr(code): code for code in printable} | {chr(256 + index): code for index, code in enumerate(others)}


ALPHABET = _byte_level_alphabet()


def _decode_byte_level(token: bytes) -> bytes:
    """Return the bytes of a token; added tokens are written as they are."""
    codes = [ALPHABET.get(character) for character in token.decode("utf-8", "replace")]
    return token if None in codes else bytes(code for code in codes if code is not None)
