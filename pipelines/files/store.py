"""Store the results of jobs as files."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

from models.accounts import files, uploads
from models.accounts.files import Audience, File
from models.accounts.uploads import NewFile
from models.platform.database import Connection, Database
from models.platform.errors import Unavailable
from models.platform.ids import new_id
from models.platform.object_store import ObjectStore
from pipelines.files.completion import cancel_upload, complete_upload
from pipelines.files.writer import OBJECT_BYTES, PartWriter

#: Seconds within which the content must be stored.
LIFETIME = 24 * 3600


def store_file(
    database: Database,
    objects: ObjectStore,
    *,
    account_id: str,
    user_id: str | None,
    file_id: str,
    filename: str,
    purpose: str,
    content_type: str,
    content: BinaryIO | Iterable[bytes],
    audience: Audience,
    days: float | None,
    job_id: str | None,
    check: Callable[[Connection], None] | None = None,
) -> File:
    """Store a result as a file of the account, which is visible once it is complete. Returns the file.

    If the file exists already, of an earlier attempt, it is returned and the content is not read. It expires after
    `days`; None: never. Raises Unavailable, NotAuthenticated if the account or the user was deleted, and Cancelled if
    the job `job_id` has ended. `check` may raise an error in the transaction that makes the file visible.
    """
    with database.connection() as connection:
        existing = files.read_any(connection, file_id, account_id)
    if existing is not None:
        return existing
    file = NewFile(filename, purpose, content_type, audience, None if days is None else int(days * 86400))
    upload_id = new_id("upload")
    with database.connection() as connection:
        uploads.insert(
            connection, upload_id, account_id, user_id=user_id, size=0, file=file, job_id=job_id, lifetime=LIFETIME
        )
    writer = PartWriter(database, objects, upload_id, account_id, new_id("part"))
    try:
        for piece in pieces(content):
            writer.write(piece)
        writer.finish()
        return complete_upload(
            database,
            upload_id=upload_id,
            account_id=account_id,
            part_ids=[writer.part_id],
            file_id=file_id,
            file=file,
            job_id=job_id,
            check=check,
        )
    finally:
        with suppress(Unavailable):  # the sweeper repeats it; of a completed upload nothing is left
            cancel_upload(database, objects, upload_id, account_id)


def pieces(content: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """Return the content in pieces of the size of an object; the last one may be smaller."""
    buffer = bytearray()
    for chunk in _chunks(content):
        buffer += chunk
        while len(buffer) >= OBJECT_BYTES:
            yield bytes(buffer[:OBJECT_BYTES])
            del buffer[:OBJECT_BYTES]
    if buffer:
        yield bytes(buffer)


def _chunks(content: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    if not hasattr(content, "read"):
        yield from content
        return
    while chunk := content.read(OBJECT_BYTES):
        yield chunk
