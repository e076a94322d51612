"""`/v1/files`: list, download and delete files that the platform created for an account, such as exports."""

from pydantic import Field
from starlette.responses import Response, StreamingResponse
from typing_extensions import TypedDict

from models.accounts import files
from models.accounts.files import File, FileAccess
from models.platform.errors import NotFound
from pipelines.files.content import read_content
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response


class FileObject(TypedDict):
    """A file, in the format of OpenAI's API. Times are in Unix seconds."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str


class FileDeleted(TypedDict):
    """A deleted file."""

    id: str
    object: str
    deleted: bool


class ListFiles(Listing):
    """The query of `GET /v1/files`."""

    after: str | None = Field(None, max_length=64)
    purpose: str | None = Field(None, max_length=64)


def list_files(request: Request) -> Response:
    """`GET /v1/files`: list the account's files, newest first."""
    query = parse_query(request.query, ListFiles)
    with request.platform.database.connection() as connection:
        records = files.page(
            connection,
            FileAccess.of(request.caller),
            purpose=query.purpose,
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, _file_object)


def read(request: Request) -> Response:
    """`GET /v1/files/{id}`: read a file's properties."""
    return json_response(_file_object(_read(request)))


def content(request: Request) -> Response:
    """`GET /v1/files/{id}/content`: download a file."""
    file = _read(request)
    headers = {
        "content-length": str(file.bytes),
        "content-disposition": f'attachment; filename="{file.filename}"',
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-store",
    }
    return StreamingResponse(read_content(request.platform.objects, file), 200, headers, media_type=file.content_type)


def delete(request: Request) -> Response:
    """`DELETE /v1/files/{id}`: delete a file."""
    file = _read(request)
    # The object first: if the process stops in between, the row is still there for a second attempt.
    request.platform.objects.delete(stored.key for stored in file.objects)
    with request.platform.database.connection() as connection:
        files.delete(connection, file.id, file.account_id)
    deleted: FileDeleted = {"id": file.id, "object": "file", "deleted": True}
    return json_response(deleted)


def _read(request: Request) -> File:
    file_id = request.path_params["file_id"]
    with request.platform.database.connection() as connection:
        file = files.read(connection, file_id, FileAccess.of(request.caller))
    if file is None:
        raise NotFound(f"File with id '{file_id}' not found.", param="file_id")
    return file


def _file_object(file: File) -> FileObject:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at else None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }
