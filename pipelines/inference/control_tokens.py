"""Keeping what people write apart from what a chat template writes.

A template marks turns with control tokens such as `<|im_start|>`, and the tokenizer takes that spelling for the token
wherever it stands. In a message it would let its author speak as the system, so it is broken there by a character
that nobody sees.
"""

import re

#: The spellings of the common families: ChatML, Llama 3, Phi, Qwen · Llama 2, Mistral · Gemma · BERT and T5 · and
#: what stands around calls and their results.
CONTROL_TOKEN = re.compile(
    r"<\|[^|<>]{1,64}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|<\uff5c[^<>]{1,64}\uff5c>"
    r"|</?tool_(?:call|response)>"
)

#: Zero width space: the spelling looks the same and is no longer the token's.
ZERO_WIDTH_SPACE = "\u200b"


def break_control_tokens(text: str) -> str:
    """The text without control tokens; most texts come back as they are."""
    if "<" not in text and "[" not in text:
        return text
    return CONTROL_TOKEN.sub(lambda found: found[0][0] + ZERO_WIDTH_SPACE + found[0][1:], text)
