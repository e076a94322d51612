"""Tokens of a SentencePiece vocabulary: text to tokens and back."""

import re
from collections.abc import Callable, Sequence
from typing import Any

#: SentencePiece's character for a blank.
BLANK = "\u2581".encode()

#: Kinds of tokens in GGUF's metadata.
CONTROL, USER_DEFINED, BYTE = 3, 4, 6


class Vocabulary:
    """A vocabulary from a GGUF file's metadata. `encode` returns the tokens of a text without control tokens."""

    def __init__(self, metadata: dict[str, Any], encode: Callable[[str], list[int]]) -> None:
        texts: Sequence[bytes] = metadata["tokenizer.ggml.tokens"]
        kinds = metadata["tokenizer.ggml.token_type"]
        self.bos: int = int(metadata.get("tokenizer.ggml.bos_token_id", 1))
        self.eos: int = int(metadata.get("tokenizer.ggml.eos_token_id", 2))
        self.data = [_data(text, int(kind)) for text, kind in zip(texts, kinds, strict=True)]
        self.control = {
            texts[index].decode(): index for index, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)
        }
        self.longest = max(map(len, self.data))
        self._encode = encode
        self._marks = re.compile("|".join(map(re.escape, sorted(self.control, key=len, reverse=True))) or r"(?!)")

    def __len__(self) -> int:
        return len(self.data)

    def text(self, token: int) -> str:
        """Return a control token as prompts write it."""
        return next((text for text, index in self.control.items() if index == token), "")

    def tokens(self, prompt: str) -> list[int]:
        """Return the tokens of a rendered prompt, which begins with the token for that, once."""
        tokens, position = list[int](), 0
        for mark in self._marks.finditer(prompt):
            tokens += [*self._plain(prompt[position : mark.start()]), self.control[mark[0]]]
            position = mark.end()
        tokens += self._plain(prompt[position:])
        return tokens if tokens[:1] == [self.bos] else [self.bos, *tokens]

    def _plain(self, text: str) -> list[int]:
        return self._encode(text) if text else []


def _data(text: bytes, kind: int) -> bytes:
    if kind == BYTE:
        return bytes([int(text[3:5], 16)])
    return b"" if kind in (CONTROL, 2) else text.replace(BLANK, b" ")
