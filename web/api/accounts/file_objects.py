"""Files as objects of OpenAI's API, and the fields with which they are created."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from models.accounts.accounts import Caller
from models.accounts.files import Audience, File, FileAccess
from models.accounts.uploads import NewFile
from models.platform.errors import NotAllowed
from pipelines.files.names import safe_filename
from pipelines.files.purposes import MAX_SECONDS, MIN_SECONDS, Purpose, default_seconds
from pipelines.requests.validation import RequestBody


class FileObject(TypedDict):
    """A file, in the format of OpenAI's API. Times are in Unix seconds; `audience` is who may read it."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: None
    audience: Audience


class FileDeleted(TypedDict):
    """A deleted file."""

    id: str
    object: str
    deleted: bool


def _number(value: object) -> object:
    """Convert the text of a form field."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19 else value


class ExpiresAfter(RequestBody):
    """When a file expires: seconds after it was created, from an hour to 30 days."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, BeforeValidator(_number)] = Field(ge=MIN_SECONDS, le=MAX_SECONDS)


class FileProperties(RequestBody):
    """What a caller says about a new file.

    `audience` is ours: who may read it, by default its user and the account's admins. A file for a batch expires after
    30 days unless `expires_after` says otherwise, others never.
    """

    purpose: Purpose
    expires_after: ExpiresAfter | None = None
    audience: Audience = "user"

    def to_new_file(self, caller: Caller, filename: str, content_type: str) -> NewFile:
        """Return what the file will be. Raises NotAllowed for a file for admins by another caller."""
        if self.audience == "admins" and not FileAccess.of(caller).admin:
            raise NotAllowed("Only admins create files for admins.", param="audience")
        seconds = self.expires_after.seconds if self.expires_after else default_seconds(self.purpose)
        return NewFile(safe_filename(filename), self.purpose, content_type, self.audience, seconds)


def file_object(file: File) -> FileObject:
    """Convert a file for a response."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": int(file.expires_at.timestamp()) if file.expires_at else None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "audience": file.audience,
    }
