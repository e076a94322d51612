"""What a chat template writes before an assistant's answer, for grammars that begin there."""

import re

import orjson

from pipelines.inference.llamacpp.loopback import LoopbackClient

#: What may be a token of its own that text is not, such as `<|im_start|>`.
SPECIAL = re.compile(r"(<[^<>\s]+>)")


def assistant_prefix(loopback: LoopbackClient) -> str:
    """The model's opening in llguidance's language: special tokens by number, text as it is."""
    asked = {"messages": [{"role": "user", "content": "Hello"}]}
    opened = loopback.request("POST", "/apply-template", asked)["prompt"]
    closed = loopback.request("POST", "/apply-template", {**asked, "add_generation_prompt": False})["prompt"]
    parts = SPECIAL.split(opened[len(closed) :] if opened.startswith(closed) else "")
    return " ".join(_symbol(loopback, part) for part in parts if part)


def _symbol(loopback: LoopbackClient, part: str) -> str:
    body = {"content": part, "add_special": False, "parse_special": True}
    tokens: list[int] = loopback.request("POST", "/tokenize", body)["tokens"]
    return f"<[{tokens[0]}]>" if SPECIAL.fullmatch(part) and len(tokens) == 1 else orjson.dumps(part).decode()
