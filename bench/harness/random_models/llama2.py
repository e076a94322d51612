"""Models like Llama 2: the SentencePiece vocabulary that ctransformers loads, without a chat template."""

from pathlib import Path
from string import ascii_letters, digits, punctuation
from typing import Any

import gguf

from bench.harness.random_models.shape import TINY, WORDS, Shape, add_weights, describe, new_writer, write_file

#: SentencePiece's character for a blank.
BLANK = "\u2581"

CONTROL = ("<unk>", "<s>", "</s>")

#: How strongly control tokens and single bytes are avoided.
AVOIDED = -100.0


def write_llama2(path: Path, shape: Shape = TINY, seed: int = 1, template: str | None = None) -> Path:
    """Write a small model. The same seed gives the same file."""
    writer, tokens = new_writer(path), vocabulary()
    describe(writer, "Random Llama 2", shape, len(tokens))
    _add_vocabulary(writer, tokens)
    if template is not None:
        writer.add_chat_template(template)
    add_weights(writer, shape, [AVOIDED if _kind(token) != gguf.TokenType.NORMAL else 0.0 for token in tokens], seed)
    write_file(writer)
    return path


def vocabulary() -> list[str]:
    """Return the tokens: control tokens, bytes, characters, and the beginnings of words, of which longer ones merge."""
    beginnings = dict.fromkeys(f"{BLANK}{word[:end]}" for word in WORDS for end in range(1, len(word) + 1))
    bytes_ = (f"<0x{byte:02X}>" for byte in range(256))
    return [*CONTROL, *bytes_, BLANK, *ascii_letters, *digits, *punctuation, *beginnings]


def _add_vocabulary(writer: Any, tokens: list[str]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(-number) for number in range(len(tokens))])
    writer.add_token_types([_kind(token) for token in tokens])
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))


def _kind(token: str) -> gguf.TokenType:
    if token == "<unk>":
        return gguf.TokenType.UNKNOWN
    if token in CONTROL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if token.startswith("<0x") else gguf.TokenType.NORMAL
