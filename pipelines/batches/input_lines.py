"""Read the lines of a batch's input file, and check each one's form.

The lines are separated by newlines, perhaps after a carriage return. A byte order mark at the beginning and blank lines
are ignored. At most one line is in memory, and of one that is too long only its beginning.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from models.platform.errors import InvalidRequest
from pipelines.requests.json_objects import parse_object

#: Bytes of a line at most.
MAX_LINE_BYTES = 4 * 1024 * 1024

#: Characters of a custom_id at most.
MAX_CUSTOM_ID = 512

#: The fields of a line.
FIELDS = frozenset({"custom_id", "method", "url", "body"})

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line of the file. `end` is the offset behind it. `content` is None if it is too long."""

    number: int
    end: int
    content: bytes | None


class LineError(Exception):
    """A line that is no request of the batch. `code` is for programs, `param` names the field."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def split_lines(chunks: Iterable[bytes], *, offset: int = 0, number: int = 0) -> Iterator[InputLine]:
    """Return the lines of a file from an offset on, before which it has `number` lines."""
    buffer, size = bytearray(), 0
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            piece = chunk[start:end]
            size, offset, number = size + len(piece), offset + size + len(piece) + 1, number + 1
            yield InputLine(number, offset, bytes(buffer + piece) if size <= MAX_LINE_BYTES else None)
            buffer.clear()
            size, start = 0, end + 1
        size += len(chunk) - start
        buffer += chunk[start:][: max(0, MAX_LINE_BYTES - len(buffer))]
    if size:
        yield InputLine(number + 1, offset + size, bytes(buffer) if size <= MAX_LINE_BYTES else None)


def is_blank(line: InputLine) -> bool:
    """Return whether a line has no request."""
    return line.content is not None and not _text(line).strip()


def _text(line: InputLine) -> bytes:
    content = line.content or b""
    return content.removeprefix(BYTE_ORDER_MARK) if line.number == 1 else content


def parse_line(line: InputLine, endpoint: str, check_model: Callable[[Any], None]) -> tuple[str, bytes]:
    """Return the custom_id and the body of a line. `check_model` raises LineError, as this does."""
    if line.content is None:
        raise LineError("line_too_long", f"This line has more than {MAX_LINE_BYTES} bytes.")
    try:
        request = parse_object(_text(line), "line")
    except InvalidRequest as error:
        raise LineError("invalid_json_line", error.message) from None
    for name in request.keys() - FIELDS:
        raise LineError("unknown_parameter", f"Unknown parameter: '{name[:64]}'.", name[:64])
    for name in ("custom_id", "method", "url", "body"):
        if name not in request:
            raise LineError("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    _check_custom_id(request["custom_id"])
    _check_target(request["method"], request["url"], endpoint)
    body = request["body"]
    if not isinstance(body, dict):
        raise LineError("invalid_body", "The body is not a JSON object.", "body")
    if body.get("stream"):
        message = "Unsupported parameter: 'stream'. Nobody reads the stream of a request in a batch."
        raise LineError("unsupported_parameter", message, "body.stream")
    check_model(body.get("model"))
    return request["custom_id"], orjson.dumps(body)


def _check_custom_id(custom_id: Any) -> None:
    valid = isinstance(custom_id, str) and 0 < len(custom_id) <= MAX_CUSTOM_ID
    if not valid:
        message = f"The custom_id is not a text of 1 to {MAX_CUSTOM_ID} characters."
        raise LineError("invalid_custom_id", message, "custom_id")


def _check_target(method: Any, url: Any, endpoint: str) -> None:
    if method != "POST":
        raise LineError("invalid_method", "The method is not 'POST'.", "method")
    if url != endpoint:
        raise LineError("invalid_url", f"The URL does not match the endpoint of the batch, '{endpoint}'.", "url")
