"""Ranges of bytes in requests for content (RFC 9110, 14)."""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` until before `end`."""

    start: int
    end: int


class NotSatisfiable(Exception):
    """No byte of the content is in the range."""


def requested_range(headers: Headers, size: int, etag: str) -> ByteRange | None:
    """Return the one range that is asked for; None for all: several ranges, or of another version, are all.

    Raises NotSatisfiable.
    """
    match = RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or match.groups() == ("", "") or headers.get("if-range", etag).strip() != etag:
        return None
    first, last = match.groups()
    if not first:  # the last bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= end:
        raise NotSatisfiable
    return ByteRange(start, end)


def names_etag(headers: Headers, etag: str) -> bool:
    """Return whether the client has this version already (If-None-Match)."""
    names = [name.strip().removeprefix("W/") for name in headers.get("if-none-match", "").split(",")]
    return etag in names or names == ["*"]
