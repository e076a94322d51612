"""`POST /v1/memories/import`: import memories from JSON Lines in a job."""

from pydantic import Field
from starlette.responses import Response

from models.accounts import files
from models.accounts.files import File, FileAccess
from models.accounts.ownership import Access
from models.jobs import jobs
from models.memory.spaces import SpaceKey
from models.platform.errors import InvalidRequest, NotFound, Unavailable
from models.platform.texts import truncate
from pipelines.files.content import read_content
from pipelines.memory import memory_jobs
from pipelines.memory.import_file import BYTE_ORDER_MARK
from web.api.job_object import job_object
from web.api.job_results import job_headers
from web.api.request import Request
from web.api.requested_space import InSpace, requested_space
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.uploads import Upload

#: The media type of the body.
MEDIA_TYPE = "application/x-ndjson"

#: The first bytes of JSON Lines, by which another format is recognised.
HEAD = 256

#: The first schema version whose workers import uploaded files.
FILES_SINCE = "0055"


class ImportQuery(InSpace):
    """The query of `POST /v1/memories/import`. `file_id` is an uploaded file, in place of a body."""

    file_id: str | None = Field(None, min_length=1, max_length=64)


def create(request: Request) -> Response:
    """`POST /v1/memories/import`: import memories from JSON Lines, at most 64 MiB, or from an uploaded file.

    Each line has the fields of `POST /v1/memories`. The response is the job; its `progress` counts lines, its `result`
    lists the invalid lines. Valid lines are imported.
    """
    query = parse_query(request.query, ImportQuery)
    key, upload, job_id = requested_space(request, query.space), request.upload, request.new_id("job")
    if query.file_id is not None:
        _import_file(request, key, query.file_id, job_id)
    else:
        _import_body(request, key, upload, job_id)
    request.platform.queue.nudge(key.account_id)
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.own(request.caller))
    if job is None:
        raise NotFound("The job of this request was deleted.")
    return json_response(job_object(job), 202, job_headers(job_id))


def _import_body(request: Request, key: SpaceKey, upload: Upload | None, job_id: str) -> None:
    """Enqueue the import of the body. Raises InvalidRequest."""
    if upload is None or not upload.lines:
        raise InvalidRequest(
            "The request body is empty. Provide JSON Lines: one memory, a JSON object, per line.", code="empty_body"
        )
    if not _is_json_lines(upload.file.read(HEAD)):
        raise InvalidRequest(
            "The request body is not JSON Lines. Provide one memory, a JSON object, per line.", code="invalid_json"
        )
    upload.file.seek(0)
    platform, counts = request.platform, {"size": upload.size, "lines": upload.lines}
    memory_jobs.enqueue_import(
        platform.database, platform.objects, key, upload.file, **counts, job_id=job_id, limits=request.admission.limits
    )


def _import_file(request: Request, key: SpaceKey, file_id: str, job_id: str) -> None:
    """Enqueue the import of a file that the caller may read. Raises InvalidRequest, NotFound and Unavailable."""
    if request.upload is not None and request.upload.size:
        raise InvalidRequest("Send either a body or 'file_id', not both.", param="file_id")
    if not request.platform.compatibility.at_least(FILES_SINCE):
        raise Unavailable("Imports of uploaded files are available once the upgrade of this server is finalized.")
    file = _read_file(request, file_id)
    head = b"".join(read_content(request.platform.objects, file, length=HEAD))
    if not _is_json_lines(head):
        message = f"The file '{file.filename}' is not JSON Lines. Each line should be a memory, a JSON object."
        raise InvalidRequest(message, param="file_id", code="invalid_json")
    memory_jobs.enqueue_import_of_file(request.platform.database, key, file.id, job_id, limits=request.admission.limits)


def _read_file(request: Request, file_id: str) -> File:
    with request.platform.database.connection() as connection:
        file = files.read(connection, file_id, FileAccess.of(request.caller))
    if file is None:
        raise NotFound(f"File with id '{truncate(file_id)}' not found.", param="file_id")
    return file


def _is_json_lines(head: bytes) -> bool:
    return head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{")
