"""`/v1/files`: upload, list, read, download and delete files, as OpenAI's API has them."""

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import Field
from starlette.responses import Response

from models.accounts import files
from models.accounts.files import File, FileAccess, Order
from models.platform.errors import InvalidRequest, NotFound, Unavailable
from pipelines.files.completion import complete_upload
from pipelines.files.deletion import delete_file
from pipelines.files.names import detect_type, safe_filename
from pipelines.requests.validation import validate
from web.api.accounts.file_objects import FileDeleted, FileProperties, file_object
from web.api.request import Request
from web.http.file_content import ContentResponse, presigned_url
from web.http.paging import page_response
from web.http.queries import RequestQuery, parse_query
from web.http.responses import json_response

log = logging.getLogger(__name__)

#: Files of a page, at most and by default, as at OpenAI.
MAX_PAGE = 10_000


class ListFiles(RequestQuery):
    """The query of `GET /v1/files`."""

    after: str | None = Field(None, max_length=100)
    limit: int = Field(MAX_PAGE, ge=1, le=MAX_PAGE)
    order: Order = "desc"
    purpose: str | None = Field(None, max_length=64)


def create(request: Request) -> Response:
    """`POST /v1/files`: upload a file of at most 512 MiB.

    The fields may be in any order. Nobody sees the file before all of it is stored.
    """
    received = request.received
    assert received is not None
    properties = validate(FileProperties, nested(received.form.fields))
    filename = received.form.filename or ""
    content_type = detect_type(received.form.head, safe_filename(filename))
    file = properties.to_new_file(request.caller, filename, content_type)
    received.writer.finish()
    created = complete_upload(
        request.platform.database,
        upload_id=received.writer.upload_id,
        account_id=request.caller.account_id,
        part_ids=[received.writer.part_id],
        file_id=request.new_id("file"),
        file=file,
    )
    received.completed = received.writer.keys[0] == created.objects[0].key
    request.platform.queue.nudge()  # the webhooks of file.created
    return json_response(file_object(created))


def nested(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a form as an object: `a[b]` is the member `b` of `a`. Raises InvalidRequest."""
    result: dict[str, Any] = {}
    for name, value in fields.items():
        outer, bracket, inner = name.partition("[")
        if not bracket:
            result[outer] = value
            continue
        members = result.setdefault(outer, {})
        if not isinstance(members, dict) or not inner.endswith("]"):
            raise InvalidRequest(f"Invalid name of a field: '{name[:64]}'.", param=name[:64])
        members[inner.removesuffix("]")] = value
    return result


def list_files(request: Request) -> Response:
    """`GET /v1/files`: list the files that the caller may read, newest first."""
    query = parse_query(request.query, ListFiles)
    with request.platform.database.connection() as connection:
        records = files.page(
            connection,
            FileAccess.of(request.caller),
            purpose=query.purpose,
            after=query.after,
            limit=query.limit + 1,
            order=query.order,
        )
    return page_response(records, query.limit, file_object)


def read(request: Request) -> Response:
    """`GET /v1/files/{id}`: read a file's properties."""
    return json_response(file_object(_read(request)))


def content(request: Request) -> Response:
    """`GET /v1/files/{id}/content`: download a file, or a range of its bytes.

    Where the operator has it so, a file in one object is a redirect to a signed URL of the object store.
    """
    file, platform = _read(request), request.platform
    url = presigned_url(platform.objects, file) if platform.settings.presigned_downloads else None
    return ContentResponse(platform.objects, file, request.headers, url)


def delete(request: Request) -> Response:
    """`DELETE /v1/files/{id}`: delete a file. Nobody reads it any more, also while the object store is unavailable."""
    file = _read(request)
    try:
        delete_file(request.platform.database, request.platform.objects, file)
    except Unavailable as error:
        log.warning("The content of a deleted file will be deleted later: %s", error)
    deleted: FileDeleted = {"id": file.id, "object": "file", "deleted": True}
    return json_response(deleted)


def _read(request: Request) -> File:
    file_id = request.path_params["file_id"]
    with request.platform.database.connection() as connection:
        file = files.read(connection, file_id, FileAccess.of(request.caller))
    if file is None:
        raise NotFound(f"File with id '{file_id}' not found.", param="file_id")
    return file
