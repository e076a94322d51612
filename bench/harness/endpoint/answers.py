"""The bytes of the endpoint's answers: `w0 w1 w2 … `, as the scripted engine's.

The model's name may be a script of its own: `tokens=20;rate=0` (without a comma, which separates models in a setting).
An answer without a rate is one write and is built once for each script, since the platforms that are measured lack
whatever CPU time the endpoint uses.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from bench.harness.endpoint.behaviour import Behaviour
from pipelines.inference.scripted.engine import SLOW_WORD

SCRIPT = re.compile(r"tokens=(\d+);rate=(\d+(?:\.\d+)?)")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """An answer: one piece for each token, what comes before the first, and what after the last.

    whole  the body of an answer that is not streamed
    first  the number of its first token
    rate   tokens a second; 0 without delay
    """

    begin: bytes
    tokens: tuple[bytes, ...]
    end: bytes
    whole: bytes
    first: int
    rate: float


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What the endpoint reads of a request.

    question  the last message of a user
    prefix    the text of a trailing assistant message
    limit     the most tokens of its answer
    """

    model: str
    texts: Sequence[str]
    question: str
    prefix: str
    limit: int | None
    stream: bool

    @property
    def prompt_tokens(self) -> int:
        """The whitespace-separated words of its messages."""
        return sum(len(text.split()) for text in self.texts)


def model_name(script: str) -> str:
    """Return the model that plays a script of the scripted engine."""
    return script.replace(",", ";")


def parse_request(body: bytes) -> CompletionRequest:
    """Parse the body of a request. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    parsed = orjson.loads(body)
    messages: Sequence[Mapping[str, Any]] = parsed.get("messages") or ()
    texts = [_text(message.get("content")) for message in messages]
    roles = [message["role"] for message in messages]
    questions = [text for text, role in zip(texts, roles, strict=True) if role == "user"]
    prefix = texts[-1] if roles[-1:] == ["assistant"] else ""
    limit = parsed.get("max_completion_tokens") or parsed.get("max_tokens")
    question = questions[-1] if questions else ""
    return CompletionRequest(parsed["model"], texts, question, prefix, limit, bool(parsed.get("stream")))


def answer_to(request: CompletionRequest, behaviour: Behaviour, mark: str) -> ScriptedAnswer:
    """Return the answer to a request; `mark` is that of its words."""
    if script := SCRIPT.fullmatch(request.model):
        return plain_answer(request.model, int(script[1]), float(script[2]))
    rate = behaviour.slow if behaviour.slow and SLOW_WORD in request.question else behaviour.rate
    first = request.prefix.count(" ") if behaviour.continues else 0
    last = min(behaviour.tokens, first + (request.limit or behaviour.tokens))
    words = [f"w{number}.{mark} " if mark else f"w{number} " for number in range(first, last)]
    reason = "stop" if last == behaviour.tokens else "length"
    return build(request.model, words, request.prompt_tokens, reason, rate, first)


@lru_cache(maxsize=64)
def plain_answer(model: str, count: int, rate: float) -> ScriptedAnswer:
    """Return the answer of a script that the model names."""
    return build(model, [f"w{number} " for number in range(count)], 1, "stop", rate)


def build(
    model: str, words: Sequence[str], prompt_tokens: int, reason: str, rate: float, first: int = 0
) -> ScriptedAnswer:
    """Return the answer of these words."""
    usage = usage_of(prompt_tokens, len(words))
    end = [
        completion_chunk(model, {}, reason),
        completion_chunk(model, None, None, usage),
        event(b"[DONE]"),
        LAST_CHUNK,
    ]
    tokens = tuple(completion_chunk(model, {"content": word}) for word in words)
    begin = HEAD + completion_chunk(model, {"role": "assistant", "content": ""})
    text, choice = "".join(words), {"index": 0, "finish_reason": reason}
    whole = {"id": "chatcmpl-script", "object": "chat.completion", "created": 1, "model": model, "usage": usage,
             "choices": [{**choice, "message": {"role": "assistant", "content": text}}]}  # fmt: skip
    return ScriptedAnswer(begin, tokens, b"".join(end), orjson.dumps(whole), first, rate)


def usage_of(prompt_tokens: int, count: int) -> dict[str, int]:
    """Return the usage of an answer."""
    return {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}


def completion_chunk(model: str, delta: object, reason: str | None = None, usage: object = None) -> bytes:
    """Return the bytes of a chat completion chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]
    body = {"id": "chatcmpl-script", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices, "usage": usage}  # fmt: skip
    return event(orjson.dumps(body))


def event(data: bytes) -> bytes:
    """Return an event in an HTTP chunk of its own."""
    frame = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def _text(content: object) -> str:
    """Return the text of a message's content, which may be parts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text") or "") for part in content)
    return str(content or "")
