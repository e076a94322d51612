"""Find the files that the input of a turn names, when the turn is accepted.

A stored part has the file's id and name, never its content: the worker reads that (`pipelines.chat.file_texts`). A part
with its content in the request keeps it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.accounts import files
from models.accounts.accounts import Caller
from models.accounts.files import File, FileAccess
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotFound
from models.platform.texts import truncate
from pipelines.files.texts import check_readable
from pipelines.files.unreadable import UnreadableFile

#: The type of a part that is a file.
PART = "input_file"

#: Files in the input of one turn, and their bytes together.
MAX_FILES, MAX_BYTES = 100, 64 << 20


def has_files(items: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether any message has a file."""
    return next(file_parts(items), None) is not None


def file_parts(items: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Return the parts of messages that are files."""
    for item in items:
        if item["type"] == "message":
            yield from (part for part in item["content"] if part.get("type") == PART)


def find_files(connection: Connection, caller: Caller, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Check that the caller may read the files that are new in these items. Returns the items, with the files' names.

    Items that a reference names, or that a delegated turn gets, were checked before.

    Raises NotFound and InvalidRequest, which name the parameter.
    """
    parts = [part for part in file_parts(items) if "param" in part]
    if not parts:
        return [dict(item) for item in items]
    if len(parts) > MAX_FILES:
        raise InvalidRequest(f"The input has {len(parts)} files, the maximum is {MAX_FILES}.", param=_param(parts[0]))
    ids = {part["file_id"] for part in parts if "file_id" in part}
    found = files.read_several(connection, sorted(ids), FileAccess.of(caller)) if ids else {}
    _check_size(parts, found)
    return [_with_files(item, found) for item in items]


def _check_size(parts: Sequence[Mapping[str, Any]], found: Mapping[str, File]) -> None:
    size = sum(file.bytes for file in found.values())
    if size > MAX_BYTES:
        raise InvalidRequest(f"The files have {size:,} bytes, the maximum is {MAX_BYTES:,}.", param=_param(parts[0]))


def _with_files(item: Mapping[str, Any], found: Mapping[str, File]) -> dict[str, Any]:
    if item["type"] != "message":
        return dict(item)
    return {**item, "content": [_found(part, found) if part.get("type") == PART else part for part in item["content"]]}


def _found(part: Mapping[str, Any], found: Mapping[str, File]) -> dict[str, Any]:
    """Return the part as it is stored. Raises NotFound and InvalidRequest."""
    stored = {name: value for name, value in part.items() if name != "param"}
    if "param" not in part or "file_id" not in part:
        return stored
    if (file := found.get(part["file_id"])) is None:
        raise NotFound(f"File with id '{truncate(part['file_id'])}' not found.", param=_param(part))
    try:
        check_readable(file.content_type, file.bytes)
    except UnreadableFile as error:
        message = f"The file '{file.filename}' ({file.id}) cannot be read: {error}."
        raise InvalidRequest(message, param=_param(part), code="unsupported_file") from None
    return {**stored, "filename": file.filename}


def _param(part: Mapping[str, Any]) -> str:
    return f"{part['param']}.{'file_id' if 'file_id' in part else 'file_data'}"
