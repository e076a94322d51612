"""`/v1/uploads`: files in parts, as OpenAI's API has them."""

import hashlib
from dataclasses import replace
from typing import Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import files, uploads
from models.accounts.files import File, FileAccess, StoredObject
from models.accounts.uploads import NewFile, Upload
from models.platform.errors import Conflict, InvalidRequest, LimitExceeded, NotFound
from models.platform.object_store import ObjectStore
from models.platform.texts import truncate
from pipelines.files.completion import cancel_upload, complete_upload
from pipelines.files.names import detect_type
from pipelines.files.writer import no_longer_pending
from pipelines.requests.validation import RequestBody
from web.api.accounts.file_objects import FileObject, FileProperties, file_object
from web.api.file_forms import MAX_PART_BYTES
from web.api.request import Request
from web.http.bodies import parse
from web.http.forms import HEAD_BYTES
from web.http.responses import json_response

#: Bytes of a file in parts, as at OpenAI, and parts of an upload.
MAX_UPLOAD_BYTES, MAX_PARTS = 8 * 1024**3, 2000


class CreateUpload(FileProperties):
    """The body of `POST /v1/uploads`: the file to be, and its bytes in all."""

    bytes: int = Field(ge=1, le=MAX_UPLOAD_BYTES)
    filename: str = Field(min_length=1, max_length=1024)
    mime_type: str = Field(max_length=255)


class CompleteUpload(RequestBody):
    """The body of `POST /v1/uploads/{id}/complete`: the parts in order, and the MD5 of the file in hexadecimal."""

    part_ids: list[str] = Field(min_length=1, max_length=MAX_PARTS)
    md5: str | None = Field(None, pattern="^[0-9a-fA-F]{32}$")


class UploadObject(TypedDict):
    """An upload, in the format of OpenAI's API. Times are in Unix seconds. `file` is there once it is completed."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: uploads.Status
    file: FileObject | None


class PartObject(TypedDict):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


def create(request: Request) -> Response:
    """`POST /v1/uploads`: begin an upload, which has an hour to be completed."""
    body = parse(request.body, CreateUpload)
    file = body.to_new_file(request.caller, body.filename, body.mime_type)
    upload_id, account_id = request.new_id("upload"), request.caller.account_id
    with request.platform.database.transaction() as connection:
        limits = request.admission.limits
        files.check_stored_bytes(connection, account_id, limits, body.bytes, file_id=upload_id)
        uploads.insert(
            connection, upload_id, account_id, user_id=request.caller.user_id, size=body.bytes, file=file, visible=True
        )
    return json_response(upload_object(_read(request, upload_id)))


def add_part(request: Request) -> Response:
    """`POST /v1/uploads/{id}/parts`: add a part of at most 64 MiB. Parts may arrive in any order, and at once."""
    received = request.received
    assert received is not None
    assert received.upload is not None
    upload = received.upload
    # A client that did not get the answer sends a part again. So parts may be twice as large as the file.
    if upload.parts >= MAX_PARTS or upload.stored + received.form.size > 2 * upload.bytes + MAX_PART_BYTES:
        message = f"The parts of the upload are much larger than the {upload.bytes} bytes that it has declared."
        raise LimitExceeded(message, code="too_many_parts")
    created_at = received.writer.finish()
    part: PartObject = {
        "id": received.writer.part_id,
        "object": "upload.part",
        "created_at": int(created_at.timestamp()),
        "upload_id": upload.id,
    }
    return json_response(part)


def complete(request: Request) -> Response:
    """`POST /v1/uploads/{id}/complete`: make the parts, in the order of `part_ids`, a file.

    A repeated request gets the same file.
    """
    body = parse(request.body, CompleteUpload)
    upload = _read(request, request.path_params["upload_id"])
    if upload.status == "completed":
        return json_response(upload_object(upload, _read_file(request, upload)))
    if upload.status != "pending":
        raise no_longer_pending()
    stored, objects = _check_parts(request, upload, body.part_ids), request.platform.objects
    _check_digest(objects, stored, body.md5)
    head = b"".join(objects.get(stored[0].key, 0, min(stored[0].bytes, HEAD_BYTES)))
    content_type = detect_type(head, upload.file.filename, declared=upload.file.content_type)
    created = _complete(request, upload, body, replace(upload.file, content_type=content_type))
    request.platform.queue.nudge()  # the webhooks of file.created
    return json_response(upload_object(_read(request, upload.id), created))


def cancel(request: Request) -> Response:
    """`POST /v1/uploads/{id}/cancel`: cancel an upload and delete its parts."""
    upload = _read(request, request.path_params["upload_id"])
    if upload.status == "completed":
        raise no_longer_pending()
    cancel_upload(request.platform.database, request.platform.objects, upload.id, upload.account_id)
    return json_response(upload_object(_read(request, upload.id)))


def upload_object(upload: Upload, file: File | None = None) -> UploadObject:
    """Convert an upload for a response."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at.timestamp()),
        "expires_at": int(upload.expires_at.timestamp()),
        "filename": upload.file.filename,
        "purpose": upload.file.purpose,
        "status": upload.status,
        "file": file_object(file) if file else None,
    }


def _read(request: Request, upload_id: str) -> Upload:
    with request.platform.database.connection() as connection:
        upload = uploads.read(connection, upload_id, request.caller.account_id, request.caller.user_id)
    if upload is None:
        raise NotFound(f"Upload with id '{upload_id}' not found.", param="upload_id")
    return upload


def _read_file(request: Request, upload: Upload) -> File | None:
    """Return the file of a completed upload; None if it was deleted."""
    with request.platform.database.connection() as connection:
        return files.read(connection, upload.file_id or "", FileAccess.of(request.caller))


def _complete(request: Request, upload: Upload, body: CompleteUpload, file: NewFile) -> File:
    try:
        return complete_upload(
            request.platform.database,
            upload_id=upload.id,
            account_id=upload.account_id,
            part_ids=body.part_ids,
            file_id=request.new_id("file"),
            file=file,
        )
    except Conflict:  # by a request at the same time
        completed = _read_file(request, _read(request, upload.id))
        if completed is None:
            raise
        return completed


def _check_parts(request: Request, upload: Upload, part_ids: list[str]) -> list[StoredObject]:
    """Return the objects of the parts. Raises InvalidRequest unless they have the bytes of the file."""
    with request.platform.database.connection() as connection:
        sizes = uploads.part_sizes(connection, upload.id, upload.account_id)
        objects = uploads.part_objects(connection, upload.id, upload.account_id, part_ids)
    if unknown := [part_id for part_id in part_ids if part_id not in sizes]:
        raise InvalidRequest(f"The upload has no part '{truncate(unknown[0])}'.", param="part_ids")
    if len(set(part_ids)) < len(part_ids):
        raise InvalidRequest("'part_ids' names a part twice.", param="part_ids")
    if (size := sum(sizes[part_id] for part_id in part_ids)) != upload.bytes:
        message = f"The parts have {size} bytes. The upload has declared {upload.bytes}."
        raise InvalidRequest(message, param="part_ids", code="size_mismatch")
    return objects


def _check_digest(objects: ObjectStore, stored: list[StoredObject], md5: str | None) -> None:
    """Compare the content with its MD5. Raises InvalidRequest."""
    if md5 is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    for each in stored:
        for chunk in objects.get(each.key, 0, each.bytes):
            digest.update(chunk)
    if digest.hexdigest() != md5.lower():
        message = f"The content has the MD5 {digest.hexdigest()}, not '{md5.lower()}'."
        raise InvalidRequest(message, param="md5", code="checksum_mismatch")
