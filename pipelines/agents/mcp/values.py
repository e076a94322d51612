"""Values of servers that may be stored and shown: without what Postgres and JSON do not have."""

from collections.abc import Mapping
from typing import Any

import orjson

#: A schema for which every object is valid.
OPEN_OBJECT: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}


def clean_text(text: str) -> str:
    """Return the text without NUL, which Postgres does not store."""
    return text.replace("\0", "")


def clean_object(value: object) -> Mapping[str, Any] | None:
    """Return a JSON object that can be stored as it is; None for anything else."""
    try:
        text = orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):
        return None
    return value if isinstance(value, dict) and b"\\u0000" not in text else None


def cut_bytes(text: str, limit: int) -> str:
    """Return the text, cut to about `limit` bytes, with a note of how much was cut off."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    kept = encoded[:limit].decode("utf-8", "ignore")
    return f"{kept}\n[{len(encoded) - limit:,} more bytes were cut off]"
