"""Keep users from writing the control tokens of a chat template.

A template marks turns with control tokens such as `<|im_start|>`, and the tokenizer reads that spelling as the token
anywhere in the prompt. In a message it would let its author write as the system, so it is broken there by an
invisible character.
"""

import re

#: Spellings of common model families: ChatML, Llama 3, Phi, Qwen · Llama 2, Mistral · Gemma · BERT and T5 · and the
#: markup of tool calls and their results.
CONTROL_TOKEN = re.compile(
    r"<\|[^|<>]{1,64}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|<\uff5c[^<>]{1,64}\uff5c>"
    r"|</?tool_(?:call|response)>"
)

#: Inserted into a control token: invisible to readers, but the tokenizer no longer recognises the token.
ZERO_WIDTH_SPACE = "\u200b"


def break_control_tokens(text: str) -> str:
    """Break every control token in the text. Most texts are returned unchanged."""
    if "<" not in text and "[" not in text:
        return text
    return CONTROL_TOKEN.sub(lambda match: match[0][0] + ZERO_WIDTH_SPACE + match[0][1:], text)
