"""Parts of messages that are files: by the id of an uploaded file, or with their content in the request."""

import base64
import re
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from pipelines.files.names import detect_type, safe_filename
from pipelines.files.readable_types import is_readable, unreadable_type
from pipelines.requests.validation import RequestBody, Unsupported

#: The bytes of a content by which its type is recognised.
HEAD = 4096

#: The content of a file with its type, as OpenAI's clients send it; without it is only the content.
DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)

#: Characters of a data URL before its content, at most. The event loop searches them.
MAX_PREFIX = 256

FileId = Annotated[str, Field(min_length=1, max_length=64)]
FileName = Annotated[str, Field(min_length=1, max_length=255)]


class FileFields(RequestBody):
    """Which file it is: `file_id`, or `file_data`, a data URL or base64, with `filename`."""

    file_id: FileId | None = None
    file_data: str | None = Field(None, description="A data URL, or base64. Its type is recognised by its content.")
    filename: FileName | None = None

    @model_validator(mode="after")
    def _check(self) -> "FileFields":
        if (self.file_id is None) == (self.file_data is None):
            raise PydanticCustomError("file", "should have either 'file_id' or 'file_data'")
        if self.file_data is not None:
            _check_content(self.file_data, self.filename or "")
        return self


class InputFile(FileFields):
    """A part of a message: a file, of which the model reads the text."""

    type: Literal["input_file"]
    detail: Literal["auto", "low", "high"] | None = Field(None, description="A hint, accepted without effect.")
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint, accepted without effect.")
    file_url: Unsupported = None

    # The name of the parameter, where the part comes from a request of another API.
    _param: str | None = PrivateAttr(None)


class FilePart(RequestBody):
    """A part of a message: a file, of which the model reads the text."""

    type: Literal["file"]
    file: FileFields
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, description="A hint, accepted without effect.")


def input_file(part: FilePart, param: str) -> InputFile:
    """Convert a part of a chat completion's message, whose file is the parameter `param`."""
    file = InputFile.model_construct(type="input_file", **part.file.model_dump())
    file._param = param  # of the same module
    return file


def stored_file(part: InputFile, param: str) -> dict[str, Any]:
    """Convert a part to that of a stored item. `param` names it in errors, until its file has been found."""
    fields = part.model_dump(include={"file_id", "file_data", "filename"}, exclude_none=True)
    if "filename" in fields:
        fields["filename"] = safe_filename(fields["filename"])
    return {"type": "input_file", **fields, "param": part._param or param}


def content_of(file_data: str) -> bytes:
    """Decode the content of a part. Raises ValueError with what it should be."""
    match = DATA_URL.match(file_data[:MAX_PREFIX])
    try:
        return base64.b64decode(file_data[match.end() if match else 0 :], validate=True)
    except ValueError:
        raise ValueError("'file_data' should be a data URL with base64, or base64") from None


def _check_content(file_data: str, filename: str) -> None:
    try:
        content = content_of(file_data)
    except ValueError as error:
        raise PydanticCustomError("file_data", "{reason}", {"reason": str(error)}) from None
    content_type = detect_type(content[:HEAD], safe_filename(filename))
    if not is_readable(content_type):
        reason = f"cannot be read: {unreadable_type(content_type)}"
        raise PydanticCustomError("file_type", "{reason}", {"reason": reason})
