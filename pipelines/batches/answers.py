"""The lines of a batch's output and error file, as OpenAI has them."""

from collections.abc import Mapping
from typing import Any

import orjson

from models.batches.batches import Batch, BatchEnd
from models.batches.lines import EndedLine, Line
from models.platform.errors import JobFailed, RequestError
from pipelines.batches.line_work import line_ids
from pipelines.requests.lines import LineAnswer, line_error

#: Why a request has no answer, by how its batch ends.
UNFINISHED: Mapping[BatchEnd, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed, since the batch was cancelled."),
    "failed": ("batch_failed", "This request was not executed, since the batch failed."),
}


def answered(batch: Batch, line: Line, answer: LineAnswer) -> EndedLine:
    """Return the end of a line that has been answered, perhaps with an error of its endpoint."""
    ids = line_ids(batch, line.position)
    response = {"status_code": answer.status_code, "request_id": ids.new("req"), "body": answer.body}
    return EndedLine(line.position, _line(batch, line, response, None), answer.failed)


def rejected(batch: Batch, line: Line, error: RequestError | JobFailed) -> EndedLine:
    """Return the end of a line whose request was rejected."""
    return answered(batch, line, line_error(error))


def unfinished(batch: Batch, line: Line) -> EndedLine:
    """Return the end of a line that was not answered before its batch was stopped."""
    code, message = UNFINISHED.get(batch.ends_as or "failed", UNFINISHED["failed"])
    return EndedLine(line.position, _line(batch, line, None, {"code": code, "message": message}), True)


def _line(batch: Batch, line: Line, response: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> str:
    request_id = line_ids(batch, line.position).new("batch_req")
    written = {"id": request_id, "custom_id": line.custom_id, "response": response, "error": error}
    return orjson.dumps(written).decode()
