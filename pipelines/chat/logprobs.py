"""Convert log probabilities of tokens to JSON: that of journalled events, and that of OpenAI's items.

Events have `bytes` only for a token that is a part of a character; items have them for each token.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.inference.engine import TokenLogprob


def logprob_object(entry: TokenLogprob) -> dict[str, Any]:
    """Build the log probability of a token for an event."""
    top = [{**_fields(other)} for other in entry.top]
    return {**_fields(entry), "top_logprobs": top}


def with_bytes(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the log probability of an event to that of an item."""
    return {**_with_bytes(entry), "top_logprobs": [*map(_with_bytes, entry["top_logprobs"])]}


def _with_bytes(entry: Mapping[str, Any]) -> dict[str, Any]:
    data = entry.get("bytes")
    return {**entry, "bytes": list(entry["token"].encode()) if data is None else data}


def _fields(entry: TokenLogprob) -> dict[str, Any]:
    data = {} if entry.data is None else {"bytes": list(entry.data)}
    token = entry.token.replace("\0", "\ufffd")  # Postgres cannot store it
    return {"token": token, "logprob": entry.logprob, **data}
