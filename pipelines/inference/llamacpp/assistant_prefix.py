"""Find out what a chat template writes before an assistant's answer, for grammars that include it."""

import re

import orjson

from pipelines.inference.llamacpp.loopback import LoopbackClient

#: A special token, such as `<|im_start|>`.
SPECIAL = re.compile(r"(<[^<>\s]+>)")


def assistant_prefix(loopback: LoopbackClient) -> str:
    """Return the template's assistant prefix in llguidance's language: special tokens by number, text quoted."""
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    with_prefix = loopback.request("POST", "/apply-template", body)["prompt"]
    without_prefix = loopback.request("POST", "/apply-template", {**body, "add_generation_prompt": False})["prompt"]
    parts = SPECIAL.split(with_prefix[len(without_prefix) :] if with_prefix.startswith(without_prefix) else "")
    return " ".join(_symbol(loopback, part) for part in parts if part)


def _symbol(loopback: LoopbackClient, part: str) -> str:
    body = {"content": part, "add_special": False, "parse_special": True}
    tokens: list[int] = loopback.request("POST", "/tokenize", body)["tokens"]
    return f"<[{tokens[0]}]>" if SPECIAL.fullmatch(part) and len(tokens) == 1 else orjson.dumps(part).decode()
