"""Models like Llama 3.1: byte-level BPE with the special tokens, `rope_freqs.weight`, and the prompt format."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from bench.harness.random_models.shape import TINY, WORDS, Shape, add_weights, describe, new_writer, write_file
from pipelines.inference.llamacpp.token_bound import ALPHABET

#: Renders the same text as the template of Llama-3.1-8B-Instruct for all prompts without its built-in tools.
TEMPLATE = Path(__file__).with_name("llama31.jinja")

#: The special tokens in their order; the rest of Llama's 256 are reserved ones, such as `<|reserved_special_token_0|>`.
SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip

#: How strongly tokens are avoided that are special, or bytes without a character of their own.
AVOIDED = -100.0

#: The factor by which Llama 3.1 stretches low frequencies, and the context before that.
FACTOR, LOW, HIGH, ORIGINAL_CONTEXT = 8.0, 1.0, 4.0, 8192

#: Tokens of Llama 3.1's vocabulary.
VOCABULARY_8B = 128_256


def write_llama31(path: Path, shape: Shape = TINY, seed: int = 1) -> Path:
    """Write a small model. The same seed gives the same file."""
    writer, (tokens, merges) = new_writer(path), vocabulary()
    add_metadata(writer, shape, tokens, merges)
    add_weights(writer, shape, [_bias(token) for token in tokens], seed)
    writer.add_tensor("rope_freqs.weight", rope_factors(shape))
    write_file(writer)
    return path


def add_metadata(writer: Any, shape: Shape, tokens: Sequence[str], merges: Sequence[str]) -> None:
    """Write everything but the tensors."""
    describe(writer, "Random Llama 3.1", shape, len(tokens))
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.CONTROL if is_special(token) else kinds.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|begin_of_text|>"))
    writer.add_eos_token_id(tokens.index("<|eot_id|>"))
    writer.add_chat_template(TEMPLATE.read_text())


def vocabulary(size: int | None = None) -> tuple[list[str], list[str]]:
    """Return the tokens and the merges: bytes and a few words, or with a size as many sequences of letters, too."""
    special = [
        *SPECIAL,
        *(f"<|reserved_special_token_{number}|>" for number in range(256 - len(SPECIAL) if size else 0)),
    ]
    tokens, merges = list(ALPHABET), list[str]()
    for parts in _merged_parts():
        if "".join(parts) not in tokens[len(ALPHABET) :]:
            tokens.append("".join(parts))
            merges.append(" ".join(parts))
    if size:
        pairs = list(islice(_letter_sequences(), size - len(tokens) - len(special)))
        tokens += ["".join(parts) for parts in pairs]
        merges += [" ".join(parts) for parts in pairs]
    return tokens + special, merges


def is_special(token: str) -> bool:
    """Return whether a token is a special one."""
    return token.startswith("<|")


def rope_factors(shape: Shape) -> npt.NDArray[np.float32]:
    """Return what each frequency of the position embedding is divided by (`rope_type: llama3`)."""
    frequencies = shape.rope_base ** -(np.arange(0, shape.head, 2, dtype=np.float64) / shape.head)
    rotations = ORIGINAL_CONTEXT * frequencies / (2 * math.pi)
    smooth = np.clip((rotations - LOW) / (HIGH - LOW), 0, 1)
    return (1 / ((1 - smooth) / FACTOR + smooth)).astype(np.float32)


def _merged_parts() -> Iterator[tuple[str, str]]:
    for word in WORDS:
        for end, letter in enumerate(word):
            yield f"\u0120{word[:end]}", letter  # \u0120 is the blank of byte-level vocabularies


def _letter_sequences() -> Iterator[tuple[str, str]]:
    for length in (2, 3, 4):
        for *first, last in product(ascii_lowercase, repeat=length):
            yield "".join(first), last


def _bias(token: str) -> float:
    avoided = is_special(token) or (len(token) == 1 and not (token.isascii() or token == "\u0120"))
    return AVOIDED if avoided else 0.0
